"""What an engine can rely on, block for block, through the Python client and a real server."""

from collections.abc import Iterator
from functools import partial

import grpc
import pytest

import kvblock
from kvblock import BlockTable, Client, Granted, RefusalReason, Refused, StepPolicy
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc
from kvblock_service.config import ServerSettings

IN_ORDER = StepPolicy.IN_ORDER_UNTIL_REFUSED
RETRY_AFTER = 0.25


# A pool for each test, of its name: the order of blocks depends on all that was before.
POOLS = {
    "two_blocks": "total=2,block_size=16,device=7",
    "pool_of_three": "total=3",
    "freed_table_comes_back_in_reverse": "total=4",
    "count_is_answered_once": "total=4",
    "engines_do_not_meet": "total=4,device=4294967295",
    "take_that_spans_freed_and_never_used_blocks": "total=6",
    "step_frees_first": "total=4",
    "policies": "total=5",
    "counters_and_revision": "total=4",
    "empty_step": "total=4",
    "largest_grant_reaches_a_client_with_default_settings": "total=1000000",
    "vast_pool": "total=2147483647",
}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pools = [f"{name}:{rest}" for name, rest in POOLS.items()]
    arguments = [f"--retry-after={RETRY_AFTER}", "--listen", "127.0.0.1:0"]
    with kvblock.EmbeddedServer(pools, arguments) as server:
        yield server.addresses[1]
        with kvblock.connect(server.address) as kv:
            assert all(kv.audit())


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).removeprefix("test_")


@pytest.fixture
def kv(address: str, pool: str) -> Iterator[Client]:
    with kvblock.connect(address, pool=pool) as client:
        yield client


def blocks(answer: Granted | Refused) -> list[int]:
    assert isinstance(answer, Granted)
    return answer.block_numbers


def test_two_blocks(kv: Client) -> None:
    assert kv.allocate(1) == Granted([0], block_size=16, device_id=7, table_length=1)
    assert kv.allocate(2) == Granted([1], block_size=16, device_id=7, table_length=1)
    refused = Refused(RefusalReason.POOL_EXHAUSTED, 0, 1, RETRY_AFTER)
    assert kv.allocate(3) == refused
    kv.free(1)
    assert blocks(kv.allocate(3)) == [0]


def test_pool_of_three(kv: Client) -> None:
    assert blocks(kv.allocate(10, 2)) == [0, 1]
    assert blocks(kv.allocate(11)) == [2]
    assert not kv.can_allocate(1)
    assert kv.can_allocate(0)
    kv.free(10)
    with pytest.raises(kvblock.NotFoundError) as caught:
        kv.get_block_table(10)
    assert caught.value.reason is kvblock.ErrorReason.SEQUENCE_NOT_FOUND
    assert kv.can_allocate(2)
    assert not kv.can_allocate(3)
    assert kv.can_allocate(3).free_blocks == 2


def test_freed_table_comes_back_in_reverse(kv: Client) -> None:
    assert blocks(kv.allocate(1, 2)) == [0, 1]
    kv.free(1)
    assert blocks(kv.allocate(2)) == [1]
    assert blocks(kv.allocate(2)) == [0]
    assert kv.get_block_table(2).block_numbers == [1, 0]


def test_count_is_answered_once(kv: Client) -> None:
    kv.allocate(1, 3)
    assert kv.free_returning_count(1) == 3
    assert kv.free_returning_count(1) == 0
    kv.free(1)
    assert blocks(kv.allocate(2, 4)) == [2, 1, 0, 3]


def test_engines_do_not_meet(kv: Client) -> None:
    last = 2**64 - 1
    assert blocks(kv.allocate(last, engine="a")) == [0]
    assert blocks(kv.allocate(last, 2, engine="b")) == [1, 2]
    assert kv.free_returning_count(last, engine="a") == 1
    assert kv.get_block_table(last, engine="b") == BlockTable([1, 2], 16, 2**32 - 1)
    assert kv.free_returning_count(last) == 0


def test_take_that_spans_freed_and_never_used_blocks(kv: Client) -> None:
    kv.allocate(1, 3)
    kv.free(1)
    assert blocks(kv.allocate(2, 5)) == [2, 1, 0, 3, 4]


def test_step_frees_first(kv: Client) -> None:
    kv.step(allocate=[1, 2], num_blocks=[3, 1])
    stepped = kv.step(free=[2, 9, 1], allocate=[3, 4], num_blocks=[1, 2])
    assert stepped == kvblock.StepResult([2, 1, 0], 2, None, [1, 0, 3], free_blocks=1)
    assert kv.get_block_table(4).block_numbers == [1, 0]


def test_policies(kv: Client) -> None:
    kv.step(allocate=[1], num_blocks=[2])
    exhausted, exceeds = RefusalReason.POOL_EXHAUSTED, RefusalReason.EXCEEDS_POOL
    refusal = Refused(exhausted, free_blocks=3, needed=4, retry_after=RETRY_AFTER)
    assert kv.step(allocate=[2, 3], num_blocks=[2, 2]) == kvblock.StepResult([], 0, refusal, [], 3)
    refusal = Refused(exhausted, free_blocks=1, needed=2, retry_after=RETRY_AFTER)
    assert kv.step(allocate=[2, 3, 4], num_blocks=[2, 2, 1], policy=IN_ORDER) == kvblock.StepResult(
        [2, 3], 1, refusal, [], 1
    )
    refusal = Refused(exceeds, free_blocks=2, needed=6, retry_after=None)
    assert kv.step(
        free=[1], allocate=[5, 6, 7], num_blocks=[1, 6, 1], policy=IN_ORDER
    ) == kvblock.StepResult([1], 1, refusal, [2], 2)


def test_counters_and_revision(kv: Client, pool: str) -> None:
    kv.allocate(1, 3)
    kv.allocate(1, 2)
    kv.allocate(1, 9)
    kv.free(99)
    kv.step(free=[1], allocate=[2], engine="b")
    kv.step(free=[1])
    (state,) = kv.stats(pool=pool).pools
    assert (state.allocated_blocks_total, state.freed_blocks_total) == (4, 3)
    assert (state.free_blocks, state.held_blocks, state.sequences) == (3, 1, 1)
    assert state.refusals == {RefusalReason.POOL_EXHAUSTED: 1, RefusalReason.EXCEEDS_POOL: 1}
    assert state.revision == 3
    assert [(row.engine, row.held_blocks) for row in state.engines] == [("b", 1)]


def test_empty_step(kv: Client, pool: str) -> None:
    assert kv.step() == kvblock.StepResult([], 0, None, [], free_blocks=4)
    assert kv.stats(pool=pool).pools[0].revision == 0


def test_largest_grant_reaches_a_client_with_default_settings(address: str, pool: str) -> None:
    limit = ServerSettings.model_fields["blocks_per_request_max"].default
    with grpc.insecure_channel(address) as channel:
        stub = kvblock_pb2_grpc.KVBlockServiceStub(channel)
        request = pb.AllocateRequest(pool=pool, sequence_id=1, num_blocks=limit)
        assert len(stub.Allocate(request).granted.block_numbers) == limit


def test_vast_pool(kv: Client, pool: str) -> None:
    limit = ServerSettings.model_fields["blocks_per_request_max"].default
    assert kv.can_allocate(limit) == kvblock.Capacity(True, 2**31 - 1)
    for call in (kv.can_allocate, partial(kv.allocate, 1)):
        with pytest.raises(kvblock.InvalidArgumentError) as caught:
            call(limit + 1)
        assert caught.value.reason is kvblock.ErrorReason.REQUEST_LIMIT
    assert blocks(kv.allocate(1, 2)) == [0, 1]
    assert kv.audit(pool=pool)[0].free_blocks == 2**31 - 3
