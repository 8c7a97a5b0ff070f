"""What a pool keeps beside its tables: counters, revision, limits, grants, size."""

import pytest

from kvblock_service.core.acquired import grant_of
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Granted, LimitReached, RefusalReason
from kvblock_service.core.free_list import FreeList
from tests.unit.core.pools import ALL, IN_ORDER, Desk

BLOCKS_MAX = 2**31 - 1


def test_counters_follow_every_command() -> None:
    desk = Desk(4)
    desk.allocate(1, 3)
    desk.refused(2, 2)
    desk.refused(2, 9)
    desk.step(free=[1], allocate=[2, 3, 4, 5, 6], policy=IN_ORDER)
    desk.step(allocate=[7], policy=ALL)
    desk.reclaim("a")
    pool = desk.pool
    assert pool.blocks.allocated_total == 7
    assert pool.blocks.freed_total == 3
    assert pool.blocks.reclaimed_total == 4
    assert pool.blocks.held == 0
    assert pool.refused_total == {
        RefusalReason.POOL_EXHAUSTED: 3,
        RefusalReason.EXCEEDS_POOL: 1,
    }


def test_revision_grows_with_every_command_that_changed_the_pool() -> None:
    desk = Desk(4)
    desk.allocate(1, 2)
    desk.allocate(2, 2)
    assert desk.pool.revision == 2
    desk.free(1)
    desk.step(free=[2], allocate=[3])
    desk.reclaim("a")
    assert desk.pool.revision == 5


def test_revision_stays_when_nothing_changed() -> None:
    desk = Desk(2, sequences_max=1)
    desk.allocate(1, 2)
    desk.refused(1)
    desk.free(99)
    desk.free(1, engine="b")
    desk.reclaim("b")
    desk.step(free=[99])
    desk.step(allocate=[1], policy=IN_ORDER)
    desk.try_step(allocate=[2, 3])
    assert desk.pool.revision == 1


def test_frees_of_a_refused_step_are_a_change() -> None:
    desk = Desk(2)
    desk.allocate(1)
    desk.step(free=[1], allocate=[2, 3, 4])
    assert desk.pool.revision == 2


def test_engines_are_kept_while_they_have_a_table() -> None:
    desk = Desk(4)
    desk.allocate(1, engine="a")
    desk.refused(1, 4, engine="b")
    desk.step(free=[1], engine="c")
    assert list(desk.pool.engines) == ["a"]
    desk.free(1, engine="a")
    assert desk.pool.engines == {}


def test_engines_max() -> None:
    desk = Desk(8, engines_max=2)
    desk.allocate(1, engine="a")
    desk.allocate(1, engine="b")
    crossed = LimitReached("engines_max", 2)
    assert desk.try_allocate(1, engine="c") == crossed
    assert desk.try_step(allocate=[1], engine="c") == crossed
    assert desk.step(free=[1], engine="c").freed_counts == [0]
    desk.allocate(2, engine="a")
    desk.free(1, engine="b")
    assert desk.allocate(1, engine="c") == [1]


def test_sequences_per_engine_max_for_an_allocate() -> None:
    desk = Desk(8, sequences_max=2)
    desk.allocate(1)
    desk.allocate(2)
    assert desk.try_allocate(3) == LimitReached("sequences_per_engine_max", 2)
    assert desk.allocate(2, 2) == [2, 3]
    assert desk.allocate(3, engine="b") == [4]


def test_sequences_per_engine_max_for_a_step() -> None:
    desk = Desk(16, sequences_max=3)
    desk.step(allocate=[1, 2])
    crossed = LimitReached("sequences_per_engine_max", 3)
    assert desk.try_step(allocate=[3, 4]) == crossed
    # Crossed by what all of its allocations would make, also where the frees alone would pass.
    assert desk.try_step(free=[99], allocate=[1, 2, 3, 4], policy=IN_ORDER) == crossed
    assert desk.table(1) == [0]
    assert desk.step(free=[1], allocate=[3, 4]).granted == 2
    assert desk.step(free=[2], allocate=[2, 3, 4]).granted == 3


def test_sequences_per_engine_max_for_a_step_of_a_new_engine() -> None:
    desk = Desk(8, sequences_max=2)
    assert desk.try_step(allocate=[1, 2, 3]) == LimitReached("sequences_per_engine_max", 2)
    assert desk.pool.engines == {}


def test_crossed_limit_frees_nothing() -> None:
    desk = Desk(8, sequences_max=2)
    desk.step(allocate=[1, 2])
    assert isinstance(desk.try_step(free=[1], allocate=[3, 4]), LimitReached)
    assert desk.table(1) == [0]


def test_grants_tell_the_engine_of_each_block() -> None:
    desk = Desk(8)
    desk.allocate(1, 2, engine="a")
    desk.allocate(1, 2, engine="b")
    desk.step(free=[1], allocate=[2, 3], engine="a")
    assert [grant_of(one).engine for one in desk.pool.blocks.grants] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("total", [1, BLOCKS_MAX])
def test_pool_of_any_size_begins_with_nothing_kept_per_block(total: int) -> None:
    desk = Desk(total)
    blocks = desk.pool.blocks
    assert (len(blocks.free_list.freed), blocks.free_list.fresh, len(blocks.grants)) == (0, 0, 0)
    assert desk.free_blocks == total
    assert desk.allocate(1) == [0]
    assert len(blocks.grants) == 1
    assert audit(desk.pool).free_blocks == total - 1


def test_last_blocks_of_the_largest_pool() -> None:
    blocks = FreeList(BLOCKS_MAX)
    blocks.fresh = BLOCKS_MAX - 2
    assert blocks.take(2) == [BLOCKS_MAX - 2, BLOCKS_MAX - 1]
    assert len(blocks) == 0
    assert Desk(BLOCKS_MAX).refused(1, BLOCKS_MAX + 1).reason is RefusalReason.EXCEEDS_POOL


def test_memory_is_kept_for_used_blocks_only() -> None:
    desk = Desk(BLOCKS_MAX)
    for sequence_id in range(3):
        assert isinstance(desk.try_allocate(sequence_id, 1000), Granted)
        desk.free(sequence_id)
    assert len(desk.pool.blocks.grants) == 1000
    assert len(desk.pool.blocks.free_list.freed) == 1000
