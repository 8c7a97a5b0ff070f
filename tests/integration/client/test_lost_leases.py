"""Leases that are lost: who learns of it, when, and how often."""

import os
import signal
import subprocess
import sys
import threading
from random import Random

import pytest

import kvblock
from kvblock import ErrorReason, LeaseLostError
from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import (
    PATIENCE,
    TTL,
    Losses,
    attach,
    both_kinds,
    engine_of,
    through,
)
from tests.integration.proxy import Proxy

STOPPED = """
import sys
import kvblock
with kvblock.connect(sys.argv[1], engine="e", timeout=60.0) as kv:
    session = kv.session(ttl=1.0)
    session.attach()
    print(session.step(allocate=[1], num_blocks=[64]).granted, flush=True)
    sys.stdin.readline()
    print(session.lease_valid, flush=True)
    try: session.step(free=[1])
    except kvblock.LeaseLostError: print("refused", flush=True)
"""


@both_kinds
def test_a_takeover_is_told_once(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    losses: Losses,
    kind: str,
) -> None:
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind, ttl=TTL, on_lease_lost=losses)
    flavour.do(kv.allocate(1))
    with kvblock.connect(server.address, engine="e") as other:
        successor = other.session(takeover=True)
        successor.attach()
        assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
        for call in (lambda: kv.allocate(1), lambda: kv.free(1), held.detach):
            with pytest.raises(LeaseLostError, match="another lease") as caught:
                flavour.do(call())
            assert caught.value.reason is ErrorReason.STALE_EPOCH
        assert not held.lease_valid
        assert successor.step(allocate=[1]).granted == 1
        assert successor.detach() == 1
    flavour.do(held.close())
    assert len(losses.told) == 1
    in_loop = losses.threads == [threading.main_thread()]
    assert in_loop == (flavour.name == "async")


def test_a_step_learns_of_a_takeover(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, losses: Losses
) -> None:
    session = attach(flavour, connect(server, engine="e"), "session", on_lease_lost=losses)
    with kvblock.connect(server.address, engine="e") as other:
        with other.session(takeover=True):
            for _ in range(2):
                with pytest.raises(LeaseLostError):
                    flavour.do(session.step(allocate=[1]))
        assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
    assert len(losses.told) == 1
    assert not session.attached


def test_a_call_that_is_told_of_the_loss_ends_the_lease_at_once(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    """Long before a renewal would learn of it."""
    kv = connect(server, engine="e")
    held = attach(flavour, kv, "lease", ttl=60.0)
    with kvblock.connect(server.address) as operator:
        operator.reclaim_engine("e", force=True)
    with pytest.raises(LeaseLostError):
        flavour.do(kv.allocate(1))
    assert not held.lease_valid


@both_kinds
def test_a_lease_that_cannot_be_renewed_ends_by_the_local_clock(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    losses: Losses,
    kind: str,
) -> None:
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind, ttl=TTL, on_lease_lost=losses)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
        assert not held.lease_valid
        assert held.lease_remaining == 0
        # Refused without a word to the server, which could not answer.
        with pytest.raises(LeaseLostError, match="was not renewed within its 1 s"):
            flavour.do(kv.allocate(1))
        if kind == "session":
            with pytest.raises(LeaseLostError, match="was not renewed within its 1 s"):
                flavour.do(held.step(allocate=[1]))
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert [error.reason for error in losses.told] == [None]


def test_a_step_that_waits_ends_with_the_lease(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, losses: Losses
) -> None:
    kv = connect(server, engine="e", timeout=None)
    session = attach(flavour, kv, "session", ttl=TTL, on_lease_lost=losses)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LeaseLostError):
            flavour.do(session.step(allocate=[1]))
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
    assert len(losses.told) == 1


def test_an_engine_that_was_stopped_finds_its_session_refusing(
    server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    command = [sys.executable, "-c", STOPPED, server.address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as engine:
        assert engine.stdin is not None
        assert engine.stdout is not None
        try:
            assert engine.stdout.readline() == "1\n"
            os.kill(engine.pid, signal.SIGSTOP)
            engine.stdin.write("\n")
            engine.stdin.flush()
            # All blocks are granted anew once the lease and the quarantine are over.
            assert observer.allocate(1, 64, max_wait=PATIENCE / 2)
        finally:
            os.kill(engine.pid, signal.SIGCONT)
        assert engine.stdout.read() == "False\nrefused\n"
    assert observer.free_returning_count(1) == 64


@both_kinds
def test_a_server_that_lost_its_state_is_told_of(
    flavour: Flavour, server_factory: ServerFactory, losses: Losses, kind: str, seed: int
) -> None:
    first, second = server_factory(), server_factory()
    with (
        Proxy(first.address, Random(seed)) as proxy,
        flavour.entered(through(flavour, proxy)) as kv,
    ):
        held = attach(flavour, kv, kind, on_lease_lost=losses)
        flavour.do(kv.allocate(1))
        proxy.target = second.address.removeprefix("unix:")
        proxy.cut()
        with pytest.raises(LeaseLostError, match="has no lease") as caught:
            flavour.do(held.step(allocate=[2]) if kind == "session" else kv.allocate(2))
        assert caught.value.metadata["current"] == "0"
        assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
        with pytest.raises(LeaseLostError):
            flavour.do(kv.allocate(1))
        flavour.do(held.close())
        again = attach(flavour, kv, kind)
        assert (again.held_blocks, again.sequences) == (0, 0)
        assert again.epoch != held.epoch
        flavour.do(again.detach())
    assert len(losses.told) == 1


@both_kinds
def test_nobody_is_told_of_a_lease_that_was_given_up(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    losses: Losses,
    kind: str,
) -> None:
    kv = connect(server, engine="e")
    flavour.do(attach(flavour, kv, kind, ttl=TTL, on_lease_lost=losses).detach())
    held = attach(flavour, kv, kind, ttl=TTL, on_lease_lost=losses)
    flavour.do(kv.allocate(1))
    flavour.do(held.close())
    while engine_of(observer, "e").attached:
        pass
    assert observer.stats().pools[0].expired_leases_total == 1
    assert losses.told == []


def test_a_callback_that_fails_ends_nothing_else(
    server: kvblock.EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())

    def fail(_: LeaseLostError) -> None:
        raise ValueError("no")

    with kvblock.connect(server.address, engine="e") as kv:
        session = kv.session(on_lease_lost=fail, ttl=TTL)
        session.attach()
        new = set(threading.enumerate()) - before
        (renewal,) = (one for one in new if one.name == "kvblock-renewal")
        with kvblock.connect(server.address, engine="e") as other, other.session(takeover=True):
            renewal.join(PATIENCE)
        assert not session.lease_valid
    assert "on_lease_lost failed" in caplog.text
