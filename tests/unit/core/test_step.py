"""Steps: frees first, then allocations in order, under both policies."""

import pytest

from kvblock_service.core.commands import RefusalReason, Refused, Stepped, StepPolicy
from tests.unit.core.pools import ALL, IN_ORDER, Desk

EXHAUSTED = RefusalReason.POOL_EXHAUSTED
EXCEEDS = RefusalReason.EXCEEDS_POOL

both_policies = pytest.mark.parametrize("policy", [ALL, IN_ORDER], ids=lambda p: p.name.lower())


@both_policies
def test_frees_come_before_allocations(policy: StepPolicy) -> None:
    desk = Desk(3)
    desk.allocate(1, 3)
    stepped = desk.step(free=[1], allocate=[2, 3], policy=policy)
    assert stepped == Stepped([2, 1], 2, None, [3], free_blocks=1)
    assert desk.table(1) is None
    assert desk.table(2) == [2]
    assert desk.table(3) == [1]


@both_policies
def test_sequence_that_is_freed_and_allocated_begins_anew(policy: StepPolicy) -> None:
    desk = Desk(4)
    desk.allocate(1, 2)
    stepped = desk.step(free=[1], allocate=[1], num_blocks=[3], policy=policy)
    assert stepped == Stepped([1, 0, 2], 1, None, [2], free_blocks=1)
    assert desk.table(1) == [1, 0, 2]


@both_policies
def test_frees_happen_in_the_order_they_are_given(policy: StepPolicy) -> None:
    desk = Desk(6)
    desk.allocate(1, 2)
    desk.allocate(2, 1)
    desk.allocate(3, 2)
    stepped = desk.step(free=[3, 99, 1], allocate=[4], num_blocks=[4], policy=policy)
    assert stepped.freed_counts == [2, 0, 2]
    assert stepped.blocks == [1, 0, 4, 3]


@both_policies
def test_counts_default_to_one_each(policy: StepPolicy) -> None:
    desk = Desk(8)
    desk.allocate(1, 2)
    stepped = desk.step(allocate=[5, 1, 3], policy=policy)
    assert stepped == Stepped([2, 3, 4], 3, None, [], free_blocks=3)
    assert desk.table(1) == [0, 1, 3]


@both_policies
def test_counts_run_parallel_to_sequences(policy: StepPolicy) -> None:
    desk = Desk(8)
    stepped = desk.step(allocate=[5, 1, 3], num_blocks=[1, 3, 2], policy=policy)
    assert stepped == Stepped([0, 1, 2, 3, 4, 5], 3, None, [], free_blocks=2)
    assert [desk.table(n) for n in (5, 1, 3)] == [[0], [1, 2, 3], [4, 5]]


@both_policies
def test_empty_step(policy: StepPolicy) -> None:
    desk = Desk(4)
    assert desk.step(policy=policy) == Stepped([], 0, None, [], free_blocks=4)
    assert desk.pool.revision == 0
    assert desk.pool.engines == {}


def test_all_or_nothing_keeps_the_frees_and_grants_none() -> None:
    desk = Desk(4)
    desk.allocate(1, 2)
    desk.allocate(2, 2)
    stepped = desk.step(free=[1], allocate=[3, 4], num_blocks=[1, 2])
    assert stepped == Stepped([], 0, Refused(EXHAUSTED, 2, 3), [2], free_blocks=2)
    assert desk.table(1) is None
    assert desk.table(3) is None
    assert desk.allocate(5, 2) == [1, 0]


def test_all_or_nothing_with_single_blocks() -> None:
    desk = Desk(2)
    stepped = desk.step(allocate=[1, 2, 3])
    # Together they need more than the pool has, so waiting would not help this step.
    assert stepped == Stepped([], 0, Refused(EXCEEDS, 2, 3), [], free_blocks=2)


def test_all_or_nothing_fits_exactly() -> None:
    desk = Desk(3)
    stepped = desk.step(allocate=[1, 2], num_blocks=[2, 1])
    assert stepped == Stepped([0, 1, 2], 2, None, [], free_blocks=0)


def test_in_order_stops_at_the_first_that_does_not_fit() -> None:
    desk = Desk(5)
    desk.allocate(9)
    # The last entry would fit; it is not tried.
    stepped = desk.step(allocate=[1, 2, 3], num_blocks=[2, 3, 1], policy=IN_ORDER)
    assert stepped == Stepped([1, 2], 1, Refused(EXHAUSTED, 2, 3), [], free_blocks=2)
    assert desk.table(1) == [1, 2]
    assert desk.table(2) is None
    assert desk.table(3) is None


def test_in_order_grants_the_last_free_block() -> None:
    desk = Desk(3)
    stepped = desk.step(allocate=[1, 2, 3], num_blocks=[2, 1, 1], policy=IN_ORDER)
    assert stepped == Stepped([0, 1, 2], 2, Refused(EXHAUSTED, 0, 1), [], free_blocks=0)


def test_in_order_with_an_entry_in_the_middle_that_exceeds_the_pool() -> None:
    desk = Desk(4)
    stepped = desk.step(allocate=[1, 2, 3], num_blocks=[1, 5, 1], policy=IN_ORDER)
    assert stepped == Stepped([0], 1, Refused(EXCEEDS, 3, 5), [], free_blocks=3)
    assert desk.table(3) is None


def test_in_order_with_single_blocks() -> None:
    desk = Desk(2)
    stepped = desk.step(allocate=[1, 2, 3, 4], policy=IN_ORDER)
    assert stepped == Stepped([0, 1], 2, Refused(EXHAUSTED, 0, 1), [], free_blocks=0)
    assert desk.table(3) is None


@pytest.mark.parametrize("num_blocks", [[], [1, 1]])
def test_in_order_that_serves_none(num_blocks: list[int]) -> None:
    desk = Desk(1)
    desk.allocate(9)
    stepped = desk.step(allocate=[1, 2], num_blocks=num_blocks, policy=IN_ORDER)
    assert stepped == Stepped([], 0, Refused(EXHAUSTED, 0, 1), [], free_blocks=0)
    assert desk.table(1) is None


def test_in_order_keeps_the_frees_when_nothing_fits() -> None:
    desk = Desk(3)
    desk.allocate(1, 3)
    stepped = desk.step(free=[1], allocate=[2], num_blocks=[4], policy=IN_ORDER)
    assert stepped == Stepped([], 0, Refused(EXCEEDS, 3, 4), [3], free_blocks=3)


def test_step_touches_only_its_engine() -> None:
    desk = Desk(6)
    desk.allocate(1, 2, engine="b")
    stepped = desk.step(free=[1], allocate=[1], engine="a")
    assert stepped == Stepped([2], 1, None, [0], free_blocks=3)
    assert desk.table(1, engine="b") == [0, 1]


def test_blocks_go_from_one_engine_to_the_next() -> None:
    desk = Desk(4)
    desk.allocate(1, 4, engine="a")
    desk.step(free=[1], engine="a")
    stepped = desk.step(allocate=[1, 2], num_blocks=[2, 2], engine="b")
    assert stepped.blocks == [3, 2, 1, 0]


def test_command_is_left_as_it_was() -> None:
    desk = Desk(2)
    free, allocate, counts = [1], [2, 3], [1, 9]
    desk.step(free, allocate, counts, IN_ORDER)
    assert (free, allocate, counts) == ([1], [2, 3], [1, 9])
