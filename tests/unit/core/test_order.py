"""The exact blocks that single commands hand out, and their order."""

import pytest

from kvblock_service.core.commands import EndQuarantine, Granted, RefusalReason, Refused
from kvblock_service.core.free_list import FreeList
from tests.unit.core.pools import Desk

EXHAUSTED = RefusalReason.POOL_EXHAUSTED
EXCEEDS = RefusalReason.EXCEEDS_POOL


def test_two_blocks_then_a_refusal_then_the_freed_one() -> None:
    desk = Desk(2)
    assert desk.allocate(1) == [0]
    assert desk.allocate(2) == [1]
    assert desk.refused(3) == Refused(EXHAUSTED, free_blocks=0, needed=1)
    assert desk.free(1) == 1
    assert desk.allocate(3) == [0]


def test_pool_of_three() -> None:
    desk = Desk(3)
    assert desk.allocate(10, 2) == [0, 1]
    assert desk.allocate(11) == [2]
    assert desk.free_blocks == 0
    desk.free(10)
    assert desk.table(10) is None
    assert desk.free_blocks == 2
    assert desk.table(11) == [2]


def test_freed_table_comes_back_in_reverse() -> None:
    desk = Desk(4)
    assert desk.allocate(1, 2) == [0, 1]
    desk.free(1)
    assert desk.allocate(2) == [1]
    assert desk.allocate(3) == [0]
    assert desk.allocate(4) == [2]


def test_one_take_reads_the_freed_stack_from_its_top() -> None:
    desk = Desk(4)
    desk.allocate(1, 3)
    desk.free(1)
    assert desk.allocate(2, 3) == [2, 1, 0]


def test_latest_freed_sequence_comes_first() -> None:
    desk = Desk(8)
    desk.allocate(1, 2)
    desk.allocate(2, 2)
    desk.allocate(3, 2)
    desk.free(1)
    desk.free(3)
    assert desk.allocate(4, 4) == [5, 4, 1, 0]


def test_take_that_spans_freed_and_never_used_blocks() -> None:
    desk = Desk(6)
    desk.allocate(1, 3)
    desk.free(1)
    assert desk.allocate(2, 5) == [2, 1, 0, 3, 4]
    desk.free(2)
    assert desk.allocate(3, 6) == [4, 3, 0, 1, 2, 5]


def test_never_used_blocks_wait_until_the_freed_ones_are_gone() -> None:
    desk = Desk(8)
    desk.allocate(1, 4)
    desk.free(1)
    assert [desk.allocate(n)[0] for n in range(10, 16)] == [3, 2, 1, 0, 4, 5]


def test_table_grows_at_its_end() -> None:
    desk = Desk(8)
    assert desk.try_allocate(1, 2) == Granted([0, 1], table_length=2)
    desk.allocate(2)
    assert desk.try_allocate(1, 2) == Granted([3, 4], table_length=4)
    assert desk.table(1) == [0, 1, 3, 4]


def test_free_answers_the_length_once() -> None:
    desk = Desk(4)
    desk.allocate(1, 3)
    assert desk.free(1) == 3
    assert desk.free(1) == 0
    assert desk.free(99) == 0
    assert desk.free(1, engine="never-seen") == 0


def test_double_free_lists_no_block_twice() -> None:
    desk = Desk(2)
    desk.allocate(1, 2)
    desk.free(1)
    desk.free(1)
    assert desk.allocate(2) == [1]
    assert desk.allocate(3) == [0]
    assert desk.refused(4).free_blocks == 0


def test_refused_allocation_takes_nothing() -> None:
    desk = Desk(3)
    desk.allocate(1, 2)
    assert desk.refused(1, 2) == Refused(EXHAUSTED, free_blocks=1, needed=2)
    assert desk.refused(2, 2) == Refused(EXHAUSTED, free_blocks=1, needed=2)
    assert desk.table(1) == [0, 1]
    assert desk.table(2) is None
    assert desk.allocate(2) == [2]


def test_more_than_the_pool_is_another_refusal() -> None:
    desk = Desk(3)
    assert desk.refused(1, 4) == Refused(EXCEEDS, free_blocks=3, needed=4)
    desk.allocate(1)
    assert desk.refused(1, 4) == Refused(EXCEEDS, free_blocks=2, needed=4)
    # It has one block already, but what counts is what is asked for now.
    assert desk.refused(1, 3) == Refused(EXHAUSTED, free_blocks=2, needed=3)


def test_engines_with_the_same_sequence_id_do_not_meet() -> None:
    desk = Desk(4)
    assert desk.allocate(7, engine="a") == [0]
    assert desk.allocate(7, engine="b") == [1]
    assert desk.free(7, engine="a") == 1
    assert desk.table(7, engine="a") is None
    assert desk.table(7, engine="b") == [1]
    assert desk.allocate(7, engine="b") == [0]
    assert desk.table(7, engine="b") == [1, 0]


def test_reclaim_frees_every_sequence_of_one_engine_in_the_order_they_came() -> None:
    desk = Desk(8)
    desk.allocate(5, 2, engine="a")
    desk.allocate(1, 1, engine="a")
    desk.allocate(5, 2, engine="b")
    assert desk.reclaim("a") == 3
    assert desk.reclaim("a") == 0
    assert desk.table(5, engine="b") == [3, 4]
    assert desk.allocate(9, 4, engine="c") == [2, 1, 0, 5]


def test_table_is_a_copy() -> None:
    desk = Desk(4)
    desk.allocate(1, 2)
    copy = desk.table(1)
    assert copy is not None
    copy.append(3)
    assert desk.table(1) == [0, 1]


def test_sequence_ids_use_all_64_bits() -> None:
    desk = Desk(4)
    assert desk.allocate(2**64 - 1) == [0]
    assert desk.allocate(0) == [1]
    assert desk.table(2**64 - 1) == [0]


def test_taking_nothing_changes_nothing() -> None:
    blocks = FreeList(2)
    assert blocks.take(0) == []
    assert blocks.take(2) == [0, 1]
    assert blocks.take(0) == []
    assert len(blocks) == 0


def test_blocks_that_end_their_quarantine_go_before_those_freed_earlier() -> None:
    desk = Desk(8)
    desk.attach("b")
    assert desk.allocate(1, 2, engine="b") == [0, 1]
    assert desk.allocate(2) == [2]
    desk.reclaim("b", quarantine_ms=100)
    desk.free(2)
    desk.apply(EndQuarantine(1))
    assert desk.allocate(3) == [1]
    assert desk.allocate(4) == [0]
    assert desk.allocate(5) == [2]


def test_blocks_of_a_reclaimed_engine_go_before_those_freed_earlier() -> None:
    desk = Desk(8)
    desk.attach("b")
    assert desk.allocate(1, 2, engine="b") == [0, 1]
    assert desk.allocate(2) == [2]
    desk.free(2)
    desk.reclaim("b")
    assert desk.step(allocate=[3, 4, 5]).blocks == [1, 0, 2]


def test_a_step_takes_a_part_of_what_it_gave_back() -> None:
    desk = Desk(8)
    assert desk.step(allocate=[1, 2, 3, 4]).blocks == [0, 1, 2, 3]
    assert desk.step(free=[2, 1, 4], allocate=[5, 6]).blocks == [3, 0]
    assert desk.allocate(7) == [1]
    assert desk.step(free=[5, 6], allocate=[8, 9, 10]).blocks == [0, 3, 4]
    assert desk.step(free=[8, 3, 99], allocate=[11, 12]).blocks == [2, 0]


def test_reserved_blocks_are_never_handed_out() -> None:
    desk = Desk(5, reserved=2)
    assert desk.free_blocks == 3
    assert desk.allocate(1, 2) == [2, 3]
    assert desk.refused(2, 2) == Refused(EXHAUSTED, free_blocks=1, needed=2)
    assert desk.refused(2, 4) == Refused(EXCEEDS, free_blocks=1, needed=4)
    assert desk.allocate(2) == [4]
    desk.free(1)
    assert desk.reclaim("a") == 1
    assert desk.allocate(3, 3) == [4, 3, 2]


def test_a_pool_has_a_block_that_is_not_reserved() -> None:
    assert Desk(3, reserved=2).allocate(1) == [2]
    with pytest.raises(AssertionError, match="a block that is not reserved"):
        Desk(3, reserved=3)
