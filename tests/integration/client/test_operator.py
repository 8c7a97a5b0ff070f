"""What operators do, with both clients, against a real server."""

from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue

import grpc
import pytest

import kvblock
from kvblock import BlockState, ErrorReason
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1.kvblock_pb2_grpc import KVBlockServiceStub
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour

LONG = 3600.0


@pytest.fixture
def server() -> Iterator[kvblock.EmbeddedServer]:
    with kvblock.EmbeddedServer(
        ["main:total=16,quarantine=3600"], ["--pools-max=2", "--page-size-max=100"]
    ) as running:
        yield running


def reason_of(flavour: Flavour, call: Callable[[], object]) -> tuple[type, ErrorReason | None]:
    with pytest.raises(kvblock.KVBlockError) as caught:
        flavour.do(call())
    return type(caught.value), caught.value.reason


def test_a_pool_is_made_used_and_deleted(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    made = flavour.do(kv.create_pool("extra", 4, block_size=32, device_id=3, quarantine=0.0))
    assert made == kvblock.PoolInfo("extra", 4, 32, 3, False, 0.0)
    assert flavour.do(kv.list_pools())[0] == made
    granted = flavour.do(kv.allocate(1, 4, pool="extra"))
    assert (granted.block_numbers, granted.block_size) == ([0, 1, 2, 3], 32)
    again = partial(kv.create_pool, "extra", 4, block_size=32, device_id=3, quarantine=0.0)
    assert reason_of(flavour, again) == (kvblock.AlreadyExistsError, ErrorReason.POOL_EXISTS)
    more = partial(kv.create_pool, "more", 4)
    assert reason_of(flavour, more) == (kvblock.FailedPreconditionError, ErrorReason.STATE_LIMIT)
    held = partial(kv.delete_pool, "extra")
    assert reason_of(flavour, held) == (kvblock.FailedPreconditionError, ErrorReason.POOL_HELD)
    flavour.do(kv.free(1, pool="extra"))
    flavour.do(kv.delete_pool("extra", request_id="once"))
    flavour.do(kv.delete_pool("extra", request_id="once"))
    gone = partial(kv.delete_pool, "extra")
    assert reason_of(flavour, gone) == (kvblock.NotFoundError, ErrorReason.POOL_NOT_FOUND)


def test_a_pool_with_reserved_blocks_and_what_engines_may_expect(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    sizes = {"reserved_blocks": 2, "block_bytes": 2**40, "regions": 4, "layout": "NHD é"}
    made = flavour.do(kv.create_pool("extra", 5, **sizes))
    assert made == kvblock.PoolInfo("extra", 5, 16, 0, False, None, 2, 2**40, 4, "NHD é")
    assert flavour.do(kv.list_pools())[0] == made
    assert flavour.do(kv.allocate(1, 3, pool="extra")).block_numbers == [2, 3, 4]
    refused = flavour.do(kv.allocate(1, 4, pool="extra"))
    assert refused.reason is kvblock.RefusalReason.EXCEEDS_POOL
    (pool,) = flavour.do(kv.stats(pool="extra")).pools
    assert (pool.free_blocks, pool.reserved_blocks, pool.issuable_blocks) == (0, 2, 3)
    (report,) = flavour.do(kv.audit(pool="extra"))
    assert (report.clean, report.held_blocks, report.reserved_blocks) == (True, 3, 2)
    listed = flavour.do(kv.list_blocks(pool="extra", states=[BlockState.RESERVED]))
    assert listed == [
        kvblock.BlockInfo(number, BlockState.RESERVED, "", None, None, "", None)
        for number in (0, 1)
    ]
    bad = partial(kv.create_pool, "more", 4, block_bytes=10, regions=3)
    assert reason_of(flavour, bad) == (kvblock.InvalidArgumentError, ErrorReason.INVALID_FIELD)


def test_a_reclaim_ends_the_stream_and_fences_the_engine(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    with grpc.insecure_channel(server.address) as channel:
        attach = pb.SessionRequest(attach=pb.SessionAttach(engine="a"))
        attach.attach.ttl.seconds = 3000
        messages: SimpleQueue[pb.SessionRequest | None] = SimpleQueue()
        messages.put(attach)
        stream = KVBlockServiceStub(channel).Session(iter(messages.get, None))
        epoch = next(stream).attached.lease.epoch
        request = pb.AllocateRequest(engine="a", epoch=epoch, sequence_id=7, num_blocks=2)
        KVBlockServiceStub(channel).Allocate(request)
        (row,) = flavour.do(kv.list_engines())
        assert (row.pool, row.engine, row.epoch) == ("main", "a", epoch)
        assert (row.held_blocks, row.sequences, row.has_stream) == (2, 1, True)
        assert 2900 < row.lease_expires_in <= 3000
        assert row.lease_expires_in + row.since_heartbeat == pytest.approx(3000)
        other = partial(kv.reclaim_engine, "a", epoch=epoch + 1)
        assert reason_of(flavour, other)[1] is ErrorReason.STALE_EPOCH
        unforced = partial(kv.reclaim_engine, "a", epoch=epoch)
        assert reason_of(flavour, unforced)[1] is ErrorReason.ENGINE_ATTACHED
        for _ in range(2):
            reclaimed = kv.reclaim_engine("a", epoch=epoch, force=True, request_id="r")
            assert flavour.do(reclaimed) == 2
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        messages.put(None)
        with pytest.raises(grpc.RpcError):
            KVBlockServiceStub(channel).Allocate(request)
    assert flavour.do(kv.list_engines()) == []
    absent = partial(kv.reclaim_engine, "a")
    assert reason_of(flavour, absent) == (kvblock.NotFoundError, ErrorReason.ENGINE_NOT_FOUND)
    rows = flavour.do(kv.list_blocks(engine="a"))
    assert [row.state for row in rows] == [BlockState.QUARANTINED] * 2
    assert all(0 < row.quarantine_ends_in <= LONG for row in rows)
    (report,) = flavour.do(kv.audit())
    assert (report.clean, report.quarantined_blocks, report.free_blocks) == (True, 2, 14)


def test_who_holds_a_block(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server, engine="a")
    flavour.do(kv.allocate(5, 2))
    flavour.do(kv.allocate(6, 1))
    flavour.do(kv.free(6))
    first, second, third = flavour.do(kv.list_blocks(page_size=1))
    assert (first.block_number, first.state, first.engine) == (0, BlockState.HELD, "a")
    assert (second.sequence_id, second.trace_id) == (5, "")
    assert (third.state, third.sequence_id) == (BlockState.FREE, None)
    assert first.since > 1_700_000_000
    (row,) = flavour.do(kv.list_blocks(block_numbers=[15]))
    assert (row.state, row.engine, row.since) == (BlockState.NEVER_USED, "", None)
    held = flavour.do(kv.list_blocks(states=[BlockState.HELD]))
    assert [row.block_number for row in held] == [0, 1]
    beyond = partial(kv.list_blocks, block_numbers=[16])
    assert reason_of(flavour, beyond)[1] is ErrorReason.INVALID_FIELD
    tables = flavour.do(kv.block_tables())
    assert (tables.tables, tables.at_one_moment) == ({5: [0, 1]}, True)


def test_tables_of_several_pages(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server, engine="a")
    flavour.do(kv.step(allocate=range(5)))
    flavour.do(kv.allocate(1, engine="b"))
    tables = flavour.do(kv.block_tables(page_size=2))
    assert tables.tables == {number: [number] for number in range(5)}
    assert tables.at_one_moment
    assert flavour.do(kv.block_tables(engine="")).tables == {}


def test_a_drain_ends_the_server_in_order(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer
) -> None:
    kv = connect(server)
    flavour.do(kv.drain())
    assert server.process.wait(timeout=60) == 0
    assert '"asked_by": "Drain"' in server.stderr
