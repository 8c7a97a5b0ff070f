"""Steps that acquire, release and trim: exact blocks, exact order, and all or nothing."""

import pytest

from kvblock_service.core import listing
from kvblock_service.core.acquired import Acquisition
from kvblock_service.core.commands import (
    BlockNotHeld,
    EndQuarantine,
    Fenced,
    LimitReached,
    RefusalReason,
    Refused,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.listing import BlockState, Wanted
from tests.unit.core.pools import ALL, IN_ORDER, Desk

EXHAUSTED = RefusalReason.POOL_EXHAUSTED
EXCEEDS = RefusalReason.EXCEEDS_POOL

both_policies = pytest.mark.parametrize("policy", [ALL, IN_ORDER], ids=lambda p: p.name.lower())


def acquired(desk: Desk, engine: str = "a") -> list[int]:
    return desk.pool.engines[engine].acquired.blocks(desk.pool.blocks.grants).tolist()


def free_order(desk: Desk) -> list[int]:
    return desk.step(acquire=desk.free_blocks, engine="last").acquired


def test_acquire_and_release() -> None:
    desk = Desk(6)
    assert desk.step(acquire=4) == Stepped([], 0, None, [], 2, [0, 1, 2, 3])
    assert desk.pool.engines["a"].held == desk.pool.blocks.held == 4
    assert desk.step(release=[1, 3]).free_blocks == 4
    assert acquired(desk) == [0, 2]
    assert desk.step(acquire=3).acquired == [3, 1, 4]
    assert acquired(desk) == [0, 2, 3, 1, 4]


def test_blocks_that_stay_keep_the_order_in_which_they_were_acquired() -> None:
    desk = Desk(8)
    desk.step(acquire=6)
    desk.step(acquire=2)
    desk.step(release=[2, 7, 0, 4])
    assert acquired(desk) == [1, 3, 5, 6]
    assert desk.step(acquire=1).acquired == [4]
    assert acquired(desk) == [1, 3, 5, 6, 4]
    desk.step(release=[6, 1, 4, 5, 3])
    assert desk.pool.engines == {}
    assert free_order(desk) == [3, 5, 4, 1, 6, 0, 7, 2]


def test_what_a_step_gives_back_is_what_it_may_take() -> None:
    desk = Desk(6)
    desk.allocate(1, 2)
    desk.allocate(2, 3)
    desk.step(acquire=1)
    stepped = desk.step(
        free=[1], release=[5], trim={2: (1, 1)}, allocate=[3], num_blocks=[2], acquire=3
    )
    assert stepped == Stepped([4, 2], 1, None, [2], 0, [5, 1, 0], [2])
    assert desk.table(2) == [3]


def test_block_that_is_not_held_changes_nothing() -> None:
    desk = Desk(8)
    desk.step(acquire=2)
    desk.allocate(1, 2)
    revision = desk.pool.revision
    outcome = desk.try_step(free=[1], release=[0, 2, 1], trim={1: (1, 0)}, acquire=1)
    assert outcome == BlockNotHeld(2, "is in the table of sequence 1 of engine 'a'")
    assert acquired(desk) == [0, 1]
    assert desk.table(1) == [2, 3]
    assert desk.pool.revision == revision


@pytest.mark.parametrize(
    ("block", "place"),
    [
        (0, "is acquired by engine 'a'"),
        (1, "is acquired by engine 'a'"),
        (2, "is in the table of sequence 7 of engine 'b'"),
        (3, "is in quarantine, since engine 'c' has lost it"),
        (4, "is free"),
        (5, "was never used"),
    ],
)
def test_who_has_a_block_that_is_not_held(block: int, place: str) -> None:
    desk = Desk(8)
    desk.step(acquire=2)
    desk.allocate(7, engine="b")
    desk.step(acquire=2, engine="c")
    desk.step(release=[4], engine="c")
    assert desk.reclaim("c", 100) == 1
    assert desk.try_step(release=[block], engine="d") == BlockNotHeld(block, place)


def test_release_of_a_block_released_before() -> None:
    desk = Desk(4)
    desk.step(acquire=3)
    desk.step(release=[1])
    assert desk.try_step(release=[1]) == BlockNotHeld(1, "is free")
    assert desk.try_step(release=[3]) == BlockNotHeld(3, "was never used")


def test_all_or_nothing_covers_the_acquire() -> None:
    desk = Desk(4)
    stepped = desk.step(allocate=[1], num_blocks=[2], acquire=3)
    assert stepped == Stepped([], 0, Refused(EXCEEDS, 4, 5), [], 4)
    desk.allocate(9, 1)
    stepped = desk.step(allocate=[1], num_blocks=[2], acquire=2)
    assert stepped == Stepped([], 0, Refused(EXHAUSTED, 3, 4), [], 3)


def test_in_order_acquires_as_many_as_are_left() -> None:
    desk = Desk(4)
    stepped = desk.step(allocate=[1, 2], acquire=3, policy=IN_ORDER)
    assert stepped == Stepped([0, 1], 2, Refused(EXHAUSTED, 2, 3), [], 0, [2, 3])


def test_in_order_acquires_nothing_behind_a_refused_allocation() -> None:
    desk = Desk(4)
    stepped = desk.step(allocate=[1, 2], num_blocks=[2, 3], acquire=1, policy=IN_ORDER)
    assert stepped == Stepped([0, 1], 1, Refused(EXHAUSTED, 2, 3), [], 2)


@both_policies
def test_refused_step_keeps_what_it_gave_back(policy: StepPolicy) -> None:
    desk = Desk(4)
    desk.step(acquire=2)
    desk.allocate(1, 2)
    stepped = desk.step(
        release=[0], trim={1: (1, 0)}, allocate=[2], num_blocks=[9], acquire=1, policy=policy
    )
    assert (stepped.acquired, stepped.trimmed_counts, stepped.free_blocks) == ([], [1], 2)
    assert acquired(desk) == [1]


def test_trims_at_the_head_and_at_the_tail() -> None:
    desk = Desk(8)
    desk.allocate(1, 6)
    assert desk.step(trim={1: (2, 1)}).trimmed_counts == [3]
    assert desk.table(1) == [2, 3, 4]
    assert desk.pool.first_index("a", 1) == 2
    assert desk.step(trim={1: (1, 0)}).trimmed_counts == [1]
    assert desk.pool.first_index("a", 1) == 3
    assert free_order(desk) == [2, 5, 1, 0, 6, 7]


@pytest.mark.parametrize("trim", [(3, 0), (0, 3), (2, 1), (2, 5), (9, 9), (2**32 - 1, 2**32 - 1)])
def test_table_trimmed_to_nothing_ends_its_sequence(trim: tuple[int, int]) -> None:
    desk = Desk(3)
    desk.allocate(1, 3)
    assert desk.step(trim={1: trim}).trimmed_counts == [3]
    assert desk.table(1) is None
    assert desk.pool.engines == {}
    assert free_order(desk) == [2, 1, 0]


def test_trims_of_nothing() -> None:
    desk = Desk(3)
    desk.allocate(1, 1)
    revision = desk.pool.revision
    assert desk.step(trim={1: (0, 0), 2: (1, 1)}).trimmed_counts == [0, 0]
    assert desk.pool.revision == revision
    assert desk.pool.first_index("a", 1) == 0


def test_trim_of_a_sequence_that_the_step_frees_gives_nothing_more() -> None:
    desk = Desk(3)
    desk.allocate(1, 3)
    stepped = desk.step(free=[1], trim={1: (1, 1)})
    assert (stepped.freed_counts, stepped.trimmed_counts) == ([3], [0])


def test_sequence_that_is_allocated_after_it_was_trimmed_to_nothing_begins_anew() -> None:
    desk = Desk(4)
    desk.allocate(1, 3)
    desk.step(trim={1: (1, 0)})
    stepped = desk.step(trim={1: (9, 0)}, allocate=[1])
    assert (stepped.blocks, stepped.trimmed_counts) == ([2], [2])
    assert desk.pool.first_index("a", 1) == 0


def test_first_index_ends_with_the_sequence() -> None:
    desk = Desk(5)
    desk.allocate(1, 3)
    desk.step(acquire=1, trim={1: (2, 0)})
    desk.free(1)
    desk.allocate(1, 1)
    assert desk.pool.first_index("a", 1) == 0


def test_trim_makes_room_among_the_sequences() -> None:
    desk = Desk(8, sequences_max=2)
    desk.step(allocate=[1, 2])
    full = LimitReached("sequences_per_engine_max", 2)
    assert desk.try_step(allocate=[3], trim={1: (0, 0)}) == full
    assert desk.step(allocate=[3], trim={1: (1, 0)}).blocks == [0]


def test_engine_with_acquired_blocks_alone_is_an_engine() -> None:
    desk = Desk(8, engines_max=1)
    desk.step(acquire=1)
    assert desk.try_step(acquire=1, engine="b") == LimitReached("engines_max", 1)
    assert desk.step(release=[0]).free_blocks == 8
    assert desk.step(acquire=1, engine="b").acquired == [0]


def test_blocks_that_were_released_cost_no_memory_of_those_that_stay() -> None:
    desk = Desk(1000)
    desk.step(acquire=1000)
    for block in range(999):
        desk.step(release=[block])
    (acquisition,) = {desk.pool.blocks.grants[999]}
    assert isinstance(acquisition, Acquisition)
    assert len(acquisition.blocks) <= 2
    assert desk.try_step(release=[0]) == BlockNotHeld(0, "is free")


def test_detach_frees_tables_then_acquired_blocks() -> None:
    desk = Desk(6)
    assert desk.attach().acquired_blocks == 0
    desk.step(acquire=3)
    desk.allocate(1, 2)
    desk.step(release=[0])
    resumed = desk.attach(epoch=desk.epochs["a"])
    assert (resumed.held_blocks, resumed.acquired_blocks) == (4, 2)
    assert desk.detach() == 4
    assert free_order(desk) == [2, 1, 4, 3, 0, 5]


def test_reclaimed_blocks_wait_with_the_others() -> None:
    desk = Desk(6)
    desk.attach()
    desk.step(acquire=2)
    desk.allocate(1, 2)
    desk.step(trim={1: (1, 0)})
    assert desk.reclaim("a", 100) == 3
    (batch,) = desk.pool.blocks.quarantine.values()
    assert batch.blocks.tolist() == [3, 0, 1]
    assert desk.try_step(release=[0], engine="b") == BlockNotHeld(
        0, "is in quarantine, since engine 'a' has lost it"
    )
    desk.apply(EndQuarantine(1))
    assert free_order(desk) == [1, 0, 3, 2, 4, 5]


def test_stale_epoch_releases_nothing() -> None:
    desk = Desk(4)
    desk.attach()
    desk.step(acquire=2)
    command = Step("a", 99, "", 0, [], [], [], ALL, release=[0])
    assert desk.apply(command) == Fenced(desk.epochs["a"])


def test_step_that_is_sent_again_releases_once() -> None:
    desk = Desk(4)
    key = ("a", 0)
    first = desk.apply(Step(*key, "r1", 0, [], [], [], ALL, acquire=2))
    assert desk.apply(Step(*key, "r1", 0, [], [], [], ALL, acquire=2)) == first
    assert desk.replayed
    second = desk.apply(Step(*key, "r2", 0, [], [], [], ALL, release=[0]))
    assert desk.apply(Step(*key, "r2", 0, [], [], [], ALL, release=[0])) == second
    assert desk.replayed
    assert acquired(desk) == [1]


def test_listing_of_acquired_blocks() -> None:
    desk = Desk(4)
    desk.step(acquire=2)
    desk.allocate(1, 2)
    desk.step(trim={1: (1, 0)})
    page = listing.blocks(desk.pool, Wanted(), -1, 10, 0)
    found = [(row.number, row.state, row.sequence_id) for row in page.rows]
    held, free = BlockState.HELD, BlockState.FREE
    assert found == [(0, held, None), (1, held, None), (2, free, None), (3, held, 1)]
    assert [row.grant.engine for row in page.rows if row.grant] == ["a"] * 4
    of_engine = listing.blocks(desk.pool, Wanted(engine="a"), -1, 10, 0).rows
    assert [row.number for row in of_engine] == [0, 1, 3]
    (row,) = listing.sequences(desk.pool, "", None, 10).rows
    assert row.first_index == 1
    state = listing.state(desk.pool, 0, 0)
    assert (state.held_blocks, state.acquired_blocks) == (3, 2)
    assert [(one.held_blocks, one.acquired_blocks) for one in state.engines] == [(3, 2)]
