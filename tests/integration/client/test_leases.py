"""Leases as both clients keep them: renewed in the background, resumed, lost and told of."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from random import Random
from typing import Any

import pytest

import kvblock
from kvblock import ErrorReason, FailedPreconditionError, LeaseLostError
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
    see_renewals,
    through,
)
from tests.integration.proxy import Proxy


@both_kinds
def test_an_idle_engine_keeps_its_lease(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    kind: str,
) -> None:
    """Nothing runs the asyncio client's loop meanwhile: its thread is busy here."""
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind, ttl=TTL)
    assert held.ttl == TTL
    assert 0 < held.lease_remaining <= TTL
    flavour.do(kv.allocate(1, 2))
    see_renewals(observer, "e", 5)
    assert held.lease_valid
    assert engine_of(observer, "e").epoch == held.epoch
    assert flavour.do(held.detach()) == 2
    assert not held.lease_valid


@both_kinds
def test_an_engine_learns_what_its_pool_is_and_may_expect_it(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, kind: str
) -> None:
    kv = connect(server, engine="e")
    sizes: dict[str, Any] = {"block_size": 32, "block_bytes": 4096, "regions": 2, "layout": "NHD"}
    flavour.do(kv.create_pool("extra", 4, reserved_blocks=1, **sizes))
    expect = kvblock.Expect(**sizes)
    held = attach(flavour, kv, kind, pool="extra", expect=expect)
    assert (held.total_blocks, held.reserved_blocks, held.block_size) == (4, 1, 32)
    assert (held.block_bytes, held.regions, held.layout) == (4096, 2, "NHD")
    flavour.do(held.detach())
    others: dict[str, Any] = {"block_size": 16, "block_bytes": 0, "regions": 1, "layout": ""}
    for field, other in others.items():
        with pytest.raises(FailedPreconditionError) as caught:
            attach(flavour, kv, kind, pool="extra", expect=replace(expect, **{field: other}))
        assert caught.value.reason is ErrorReason.GEOMETRY_MISMATCH
        assert caught.value.metadata == {
            "pool": "extra",
            field: str(sizes[field]),
            f"expected_{field}": str(other),
        }
        assert f"{field} is {sizes[field]!r}, expected {other!r}" in str(caught.value)
    (pool,) = flavour.do(kv.stats(pool="extra")).pools
    assert pool.engines == ()
    with pytest.raises(kvblock.InvalidArgumentError, match="expect: 'NHD' must be an Expect"):
        attach(flavour, kv, kind, expect="NHD")
    with pytest.raises(kvblock.InvalidArgumentError, match=r"expect\.regions: -1 must"):
        attach(flavour, kv, kind, expect=kvblock.Expect(regions=-1))
    flavour.do(kv.delete_pool("extra"))


@both_kinds
def test_calls_of_the_client_are_made_under_its_lease(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, kind: str
) -> None:
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind)
    assert flavour.do(kv.allocate(1)).block_numbers == [0]
    assert flavour.do(kv.get_block_table(1)).block_numbers == [0]
    assert flavour.do(kv.step(free=[1], allocate=[2])).freed_counts == [1]
    assert flavour.do(kv.allocate(1, engine="other")).block_numbers == [1]
    stranger = connect(server, engine="e")
    with pytest.raises(FailedPreconditionError) as caught:
        flavour.do(stranger.allocate(1))
    assert caught.value.reason is ErrorReason.STALE_EPOCH
    assert not isinstance(caught.value, LeaseLostError)
    worker = connect(server, engine="e", epoch=held.epoch)
    assert flavour.do(worker.allocate(3)).table_length == 1
    assert flavour.do(held.detach()) == 2
    with pytest.raises(LeaseLostError):
        flavour.do(worker.allocate(3))
    flavour.do(kv.free(2))


@both_kinds
def test_a_second_attach_is_told_when_to_come_back(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, kind: str
) -> None:
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind, ttl=30.0)
    with pytest.raises(FailedPreconditionError) as caught:
        attach(flavour, connect(server, engine="e"), kind)
    assert caught.value.reason is ErrorReason.ENGINE_ATTACHED
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 30.0
    flavour.do(held.detach())


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


def test_a_session_goes_on_after_a_broken_stream(
    flavour: Flavour, proxy: Proxy, observer: kvblock.Client, losses: Losses
) -> None:
    with flavour.entered(through(flavour, proxy)) as kv:
        with flavour.entered(kv.session(on_lease_lost=losses)) as session:
            epoch = session.epoch
            for number in range(20):
                assert flavour.do(session.step(allocate=[number])).block_numbers == [number]
                proxy.cut()
            assert session.epoch == epoch
            assert engine_of(observer, "e").held_blocks == 20
        assert engine_of(observer, "e").held_blocks == 0
    assert losses.told == []


def test_an_attach_whose_answer_is_lost_is_the_same_attach(
    flavour: Flavour, proxy: Proxy, observer: kvblock.Client
) -> None:
    with flavour.entered(through(flavour, proxy)) as kv:
        for kind in ("session", "lease"):
            proxy.loses_next = 3
            held = attach(flavour, kv, kind)
            assert engine_of(observer, "e").epoch == held.epoch
            flavour.do(held.detach())
    assert proxy.cuts == 6


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


def test_a_session_that_may_not_go_on_yet_keeps_its_step(
    flavour: Flavour, server_factory: ServerFactory, seed: int
) -> None:
    server = server_factory(extra_args=("--sessions-max", "1"))
    with (
        Proxy(server.address, Random(seed)) as proxy,
        flavour.entered(through(flavour, proxy)) as kv,
        kvblock.connect(server.address, engine="other") as other,
    ):
        session = attach(flavour, kv, "session")
        assert flavour.do(session.step(allocate=[1])).granted == 1
        proxy.accepts = False
        proxy.cut()
        # There is one place for a stream, and somebody else takes it.
        rival = other.session()
        while not rival.attached:
            with contextlib.suppress(FailedPreconditionError):
                rival.attach()
        proxy.accepts = True
        for call in (lambda: session.step(allocate=[2]), session.recover):
            with pytest.raises(FailedPreconditionError) as caught:
                flavour.do(call())
            assert caught.value.reason is ErrorReason.STATE_LIMIT
            assert session.unanswered
        assert rival.detach() == 0
        assert flavour.do(session.recover()).granted == 1
        assert flavour.do(session.step(free=[1, 2])).freed_counts == [1, 1]
        assert flavour.do(session.detach()) == 0


def test_an_unavailable_server_is_waited_for(
    flavour: Flavour, proxy: Proxy, observer: kvblock.Client
) -> None:
    """Calls begin while nobody answers and end when somebody does."""
    with flavour.entered(through(flavour, proxy)) as kv:
        session = attach(flavour, kv, "session")
        proxy.accepts = False
        proxy.cut()
        timer = threading.Timer(0.3, setattr, (proxy, "accepts", True))
        timer.start()
        assert flavour.do(session.step(allocate=[1])).granted == 1
        timer.join()
        proxy.accepts = False
        proxy.cut()
        timer = threading.Timer(0.3, setattr, (proxy, "accepts", True))
        timer.start()
        assert flavour.do(kv.allocate(2)).table_length == 1
        timer.join()
        assert flavour.do(session.detach()) == 2


def test_the_same_request_id_answers_the_same(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    first = flavour.do(kv.allocate(1, 2, request_id="one"))
    assert flavour.do(kv.allocate(1, 2, request_id="one")) == first
    with pytest.raises(kvblock.InvalidArgumentError) as caught:
        flavour.do(kv.allocate(1, 3, request_id="one"))
    assert caught.value.reason is ErrorReason.ID_REUSED
    assert flavour.do(kv.free_returning_count(1, request_id="two")) == 2
    assert flavour.do(kv.free_returning_count(1, request_id="two")) == 2
    assert flavour.do(kv.stats()).pools[0].held_blocks == 0


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


def test_a_busy_loop_is_told_when_it_is_free(
    server: kvblock.EmbeddedServer, losses: Losses
) -> None:
    async def scenario() -> None:
        async with kvblock.connect_async(server.address, engine="e") as kv:
            session = kv.session(ttl=TTL, on_lease_lost=losses)
            await session.attach()
            with kvblock.connect(server.address, engine="e") as other:
                with other.session(takeover=True):
                    while session.lease_valid:
                        pass
                assert losses.told == []
            assert await asyncio.to_thread(losses.event.wait, PATIENCE)

    asyncio.run(scenario())


def test_a_step_that_a_blocked_loop_reads_late_keeps_a_lease_that_was_renewed(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(("main:total=8",), ["--lease-ttl-min", "1"])

    async def scenario() -> None:
        async with (
            kvblock.connect_async(server.address) as kv,
            kv.session(engine="e", ttl=TTL) as session,
        ):
            step = asyncio.create_task(session.step(allocate=[1]))
            await asyncio.sleep(0)
            blocked_until = time.monotonic() + 1.5 * TTL
            while time.monotonic() < blocked_until:
                pass
            assert (await step).block_numbers == [0]
            assert session.lease_valid

    asyncio.run(scenario())
