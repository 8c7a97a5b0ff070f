"""Leases as both clients keep them: renewed in the background, resumed, lost and told of."""

import asyncio
import contextlib
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
