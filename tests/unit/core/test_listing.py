"""Pages of sequences and of blocks: order, filters, holders, and where one page ends."""

from kvblock_service.core.acquired import Grant
from kvblock_service.core.commands import Allocate, Attach, EndQuarantine, Free, Reclaim, Stamp
from kvblock_service.core.listing import (
    BlockRow,
    BlockState,
    SequenceRow,
    Wanted,
    blocks,
    sequences,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool

A_AT_1 = Grant("a", 1000, "t1")
B_AT_2 = Grant("b", 2000, "t2")


def pool_of(total: int = 16) -> Pool:
    return Pool(Geometry("main", total, 16, 0), Bounds(8, 64, 8))


def stamp(second: int = 0) -> Stamp:
    return Stamp(second * 1000, second * 1000, f"t{second}" if second else "")


def filled() -> Pool:
    """0 1 2 in a's 10, 3 freed by a, 4 5 in b's 20, the rest never used."""
    pool = pool_of()
    pool.apply(Allocate("a", 0, "", 10, 3), stamp(1))
    pool.apply(Allocate("a", 0, "", 11, 1), stamp(1))
    pool.apply(Allocate("b", 0, "", 20, 2), stamp(2))
    pool.apply(Free("a", 0, "", 11), stamp(3))
    return pool


def test_every_used_block_has_its_state_and_who_was_granted_it() -> None:
    page = blocks(filled(), Wanted(), -1, 100, 0)
    assert page.rows == [
        BlockRow(0, BlockState.HELD, A_AT_1, 10),
        BlockRow(1, BlockState.HELD, A_AT_1, 10),
        BlockRow(2, BlockState.HELD, A_AT_1, 10),
        BlockRow(3, BlockState.FREE, A_AT_1),
        BlockRow(4, BlockState.HELD, B_AT_2, 20),
        BlockRow(5, BlockState.HELD, B_AT_2, 20),
    ]
    assert page.last is None
    assert page.revision == 4


def test_pages_of_blocks_meet_without_a_gap() -> None:
    pool = filled()
    whole = blocks(pool, Wanted(), -1, 100, 0).rows
    for size in range(1, 8):
        rows, after = [], -1
        while True:
            page = blocks(pool, Wanted(), after, size, 0)
            assert len(page.rows) <= size
            rows += page.rows
            if page.last is None:
                break
            after = page.last
        assert rows == whole


def test_blocks_by_number_may_be_unused() -> None:
    page = blocks(filled(), Wanted(numbers=[3, 9, 15]), -1, 2, 0)
    assert page.rows == [
        BlockRow(3, BlockState.FREE, A_AT_1),
        BlockRow(9, BlockState.NEVER_USED, None),
    ]
    assert page.last == 9
    rest = blocks(filled(), Wanted(numbers=[3, 9, 15]), 9, 2, 0)
    assert rest.rows == [BlockRow(15, BlockState.NEVER_USED, None)]
    assert rest.last is None


def test_blocks_of_an_engine_are_those_it_holds() -> None:
    assert [row.number for row in blocks(filled(), Wanted("a"), -1, 100, 0).rows] == [0, 1, 2]
    assert blocks(filled(), Wanted("c"), -1, 100, 0).rows == []
    by_number = blocks(filled(), Wanted("a", numbers=[0, 3, 4, 9]), -1, 100, 0)
    assert [row.number for row in by_number.rows] == [0]


def test_blocks_of_a_state_may_leave_a_page_empty() -> None:
    page = blocks(filled(), Wanted(states=[BlockState.FREE]), -1, 2, 0)
    assert page.rows == []
    assert page.last == 1
    page = blocks(filled(), Wanted(states=[BlockState.FREE]), 1, 2, 0)
    assert [row.number for row in page.rows] == [3]


def test_quarantined_blocks_tell_who_lost_them_and_how_long_they_wait() -> None:
    pool = filled()
    pool.apply(Reclaim("a", 0, "", 500), stamp(10))
    page = blocks(pool, Wanted("a"), -1, 100, 10_100)
    assert page.rows == [
        BlockRow(number, BlockState.QUARANTINED, A_AT_1, ends_in_ms=400) for number in (0, 1, 2)
    ]
    assert blocks(pool, Wanted("a"), -1, 1, 99_000).rows[0].ends_in_ms == 0
    pool.apply(EndQuarantine(1), stamp(11))
    assert blocks(pool, Wanted("a"), -1, 100, 11_000).rows == []
    assert blocks(pool, Wanted(), -1, 1, 0).rows == [BlockRow(0, BlockState.FREE, A_AT_1)]


def test_a_successor_of_the_same_name_does_not_get_the_blocks_that_wait() -> None:
    pool = filled()
    pool.apply(Reclaim("a", 0, "", 500), stamp(10))
    pool.apply(Allocate("a", 0, "", 10, 1), stamp(10))
    states = {row.number: row.state for row in blocks(pool, Wanted("a"), -1, 100, 0).rows}
    assert states.pop(3) is BlockState.HELD
    assert states == dict.fromkeys((0, 1, 2), BlockState.QUARANTINED)


def test_sequences_have_their_blocks_when_asked_for() -> None:
    pool = filled()
    assert sequences(pool, "", None, 10).rows == [SequenceRow("a", 10, 3), SequenceRow("b", 20, 2)]
    page = sequences(pool, "", None, 10, numbers_max=100)
    assert page.rows == [SequenceRow("a", 10, 3, [0, 1, 2]), SequenceRow("b", 20, 2, [4, 5])]
    assert not page.more


def test_a_page_of_tables_ends_with_the_row_that_makes_it_long() -> None:
    pool = filled()
    first = sequences(pool, "", None, 10, numbers_max=3)
    assert [row.engine for row in first.rows] == ["a"]
    assert first.more
    second = sequences(pool, "", ("a", 10), 10, numbers_max=3)
    assert [row.engine for row in second.rows] == ["b"]
    assert not second.more


def test_a_reclaim_that_is_sent_again_is_the_same_whatever_the_quarantine_would_be_now() -> None:
    pool = filled()
    first, _ = pool.apply(Reclaim("a", 0, "again", 500), stamp(10))
    assert pool.apply(Reclaim("a", 0, "again", 9_000), stamp(11)) == (first, True)


def test_a_takeover_that_is_sent_again_is_the_same_whatever_the_quarantine_would_be_now() -> None:
    pool = pool_of()
    pool.apply(Attach("a", 0, "", False, 30_000, 30_000), stamp(1))
    taken, _ = pool.apply(Attach("a", 0, "again", True, 1_000, 30_000), stamp(2))
    assert pool.apply(Attach("a", 0, "again", True, 1_000, 1_000), stamp(3)) == (taken, True)


def test_reserved_blocks_have_nobody_and_can_be_asked_for() -> None:
    pool = Pool(Geometry("main", 5, 16, 0, 2), Bounds(8, 64, 8))
    pool.apply(Allocate("a", 0, "", 10, 1), stamp(1))
    reserved = [BlockRow(number, BlockState.RESERVED, None) for number in (0, 1)]
    everything = blocks(pool, Wanted(), -1, 100, 0)
    assert everything.rows[:2] == reserved
    assert [row.number for row in everything.rows] == [0, 1, 2]
    assert blocks(pool, Wanted(states=[BlockState.RESERVED]), -1, 100, 0).rows == reserved
    assert blocks(pool, Wanted(numbers=[1, 4]), -1, 100, 0).rows == [
        reserved[1],
        BlockRow(4, BlockState.NEVER_USED, None),
    ]
    assert [row.number for row in blocks(pool, Wanted("a"), -1, 100, 0).rows] == [2]
