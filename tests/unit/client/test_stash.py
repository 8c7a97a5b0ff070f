"""The stash of a block pool: exact blocks, order and sizes of exchanges."""

import random
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvblock.stash import Exchange, NotHandedOut, Stash


def filled(blocks: list[int], ready_max: int = 8192) -> Stash:
    """A stash in which these were acquired by one request, and given back."""
    stash = Stash(ready_max, 10_000)
    stash.begin(0, len(blocks))
    stash.settle(blocks, len(blocks))
    assert stash.take(len(blocks)) == blocks
    stash.give(blocks)
    return stash


def test_the_most_recently_released_block_is_handed_out_first() -> None:
    stash = filled([0, 1, 2, 3])
    assert stash.take(2) == [3, 2]
    assert stash.take(1) == [1]
    stash.give([2, 3])
    assert stash.take(3) == [3, 2, 0]
    assert stash.take(1) is None


def test_blocks_are_handed_out_in_the_order_in_which_they_were_granted() -> None:
    stash = Stash(0, 1000)
    assert stash.begin(0, 3) == Exchange(3, [])
    stash.settle([7, 5, 6], 3)
    assert stash.take(3) == [7, 5, 6]


@pytest.mark.parametrize(
    ("blocks", "block", "problem"),
    [
        ([2, 9], 9, "blocks[1]: 9 is not handed out"),
        ([2, 3, 2], 2, "blocks[2]: 2 is a duplicate of entry 0"),
        ([3, 1], 1, "blocks[1]: 1 is not handed out"),
    ],
)
def test_a_wrong_release_changes_nothing(blocks: list[int], block: int, problem: str) -> None:
    stash = filled([0, 1, 2, 3])
    assert stash.take(2) == [3, 2]
    with pytest.raises(NotHandedOut) as raised:
        stash.give(blocks)
    assert (raised.value.block, str(raised.value)) == (block, problem)
    assert (stash.ready, stash.handed_out) == (2, 2)
    assert stash.take(2) == [1, 0]


def test_a_steady_engine_exchanges_nothing() -> None:
    stash = filled(list(range(64)))
    calls = 0
    for _ in range(1000):
        blocks = stash.take(32)
        assert blocks is not None
        stash.give(blocks)
        if stash.end_iteration(0):
            calls += 1
            stash.settle(range(1000, 1000 + stash.begin(0).acquire))
    # The first request was for 64; what it needed fades until the surplus goes back.
    assert calls <= 2
    assert 32 <= stash.ready <= 32 * 8


def test_a_refill_is_for_four_iterations_and_within_its_bound() -> None:
    stash = Stash(100, 1000)
    assert stash.begin(0, 10) == Exchange(10 + 40, [])
    stash.settle(list(range(50)), 10)
    assert stash.take(10) == list(range(10))
    assert not stash.end_iteration(0)
    for _ in range(3):
        assert stash.take(10) is not None
        assert not stash.end_iteration(0)
    assert stash.take(10) is not None
    assert stash.end_iteration(0)
    assert stash.begin(0) == Exchange(40, [])
    stash.settle(list(range(50, 90)))
    assert stash.begin(0, 60) == Exchange(20 + 100, [])


def test_half_of_what_is_free_is_left_to_others() -> None:
    stash = Stash(100, 1000)
    assert stash.begin(0, 10) == Exchange(10 + 40, [])
    stash.settle(list(range(50)), 10, free=12)
    assert stash.take(50) is not None
    assert stash.begin(0, 5) == Exchange(5 + 6, [])
    stash.settle(list(range(50, 61)), 5, free=1)
    assert stash.take(11) is not None
    assert not stash.end_iteration(0)
    assert not stash.begin(0)


def test_no_more_is_asked_for_than_an_engine_can_have() -> None:
    stash = Stash(100, 40)
    assert stash.begin(0, 20) == Exchange(40, [])
    stash.settle(list(range(40)), 20)
    assert stash.take(20) is not None
    assert not stash.end_iteration(0)
    assert stash.begin(0, 30) == Exchange(10, [])


def test_nothing_is_fetched_ahead_when_others_lack_blocks() -> None:
    stash = Stash(100, 1000)
    assert stash.begin(5, 10) == Exchange(10, [])


def test_what_is_owed_goes_back_at_once_and_the_longest_ready_first() -> None:
    stash = filled([0, 1, 2, 3])
    assert not stash.end_iteration(0)
    assert stash.end_iteration(3)
    assert stash.begin(3) == Exchange(0, [0, 1, 2])
    assert stash.take(1) == [3]
    stash.settle([])
    stash.give([3])
    assert stash.end_iteration(9)
    assert stash.begin(9) == Exchange(0, [3])


def test_after_a_refusal_everything_goes_back() -> None:
    stash = Stash(100, 1000)
    stash.begin(0, 10)
    stash.settle([0, 1, 2], 10)
    assert stash.take(10) is None
    assert stash.lacked == 10
    assert stash.begin(0, 10) == Exchange(7, [])
    stash.settle([], 10)
    assert stash.end_iteration(0)
    assert stash.begin(0) == Exchange(0, [2, 1, 0])
    stash.settle([])
    assert stash.lacked == 10
    stash.begin(0, 1)
    stash.settle([5], 1)
    assert stash.take(1) == [5]
    assert stash.lacked == 0


def test_a_request_that_is_not_made_again_lacks_nothing_any_more() -> None:
    stash = Stash(100, 1000)
    stash.begin(0, 10)
    stash.settle([], 10)
    assert not stash.end_iteration(0)
    assert stash.lacked == 10
    stash.begin(0)
    # Nothing has to be fetched or given back: the exchange tells that nothing is lacked any more.
    assert stash.end_iteration(0)
    assert stash.lacked == 0
    assert stash.begin(0) == Exchange(0, [])
    assert stash.is_open
    stash.settle([])
    assert not stash.end_iteration(0)


def test_a_resting_engine_gives_everything_back_by_and_by() -> None:
    stash = filled(list(range(64)))
    stash.end_iteration(0)
    left = []
    assert not stash.rest()
    while stash.ready:
        if stash.rest():
            stash.begin(0)
            stash.settle([])
        left.append(stash.ready)
    assert left == [64, 64, 64, 16, 16, 4, 0]


def test_an_exchange_that_was_not_carried_out_is_undone() -> None:
    stash = filled([0, 1, 2, 3])
    stash.end_iteration(2)
    assert stash.begin(2) == Exchange(0, [0, 1])
    stash.undo()
    assert stash.take(4) == [3, 2, 1, 0]


def test_an_empty_exchange_is_not_open() -> None:
    stash = filled([0, 1])
    assert not stash.begin(0)
    assert not stash.is_open


@pytest.mark.parametrize("seed", range(20))
def test_no_block_is_lost_or_there_twice(seed: int) -> None:
    """Random use of a stash against a naive server, which knows what the engine holds."""
    draw = random.Random(seed)
    free = list(range(500))
    held: set[int] = set()
    stash = Stash(draw.choice([0, 10, 1000]), 500)
    mine: list[int] = []

    def exchange(need: int = 0) -> None:
        owed = draw.choice([0, 0, 0, draw.randrange(100)])
        wanted = stash.begin(owed, need)
        if not wanted:
            return
        if draw.random() < 0.1:
            stash.undo()
            return
        assert held.issuperset(wanted.release)
        held.difference_update(wanted.release)
        free.extend(wanted.release)
        granted = [free.pop() for _ in range(min(wanted.acquire, len(free)))]
        held.update(granted)
        stash.settle(granted, need)

    for _ in range(2000):
        need = draw.randrange(1, 60)
        blocks = stash.take(need)
        if blocks is None:
            exchange(need)
            blocks = stash.take(need)
        if blocks is not None:
            assert len(blocks) == need
            assert not held.isdisjoint(blocks)
            assert not set(mine) & set(blocks)
            mine += blocks
        draw.shuffle(mine)
        back = draw.randrange(len(mine) + 1) if draw.random() < 0.7 else 0
        stash.give(mine[:back])
        del mine[:back]
        if draw.random() < 0.5 and stash.end_iteration(0):
            exchange()
        assert stash.handed_out == len(mine)
        assert stash.ready + stash.handed_out == len(held)
        assert len(held) + len(free) == 500
    stash.give(mine)
    free += stash.empty().release
    assert sorted(free) == list(range(500))


class Marks:
    """Each block carries the one that has it; a mark of somebody else's is a block with two."""

    def __init__(self, blocks: int) -> None:
        self._of: list[object] = [None] * blocks
        self.wrong: list[int] = []

    def change(self, blocks: Iterable[int], before: object, after: object) -> None:
        for block in blocks:
            if self._of[block] is not before:
                self.wrong.append(block)
            self._of[block] = after


def use(stash: Stash, marks: Marks, seed: int) -> None:
    """Take and give at random, and give everything back at last."""
    draw, me = random.Random(seed), object()
    mine: list[int] = []
    for _ in range(4000):
        taken = stash.take(draw.choice([1, 1, 2, 3])) or []
        marks.change(taken, None, me)
        mine += taken
        back = mine[: draw.randrange(len(mine) + 1)]
        if len(back) == 1:
            with pytest.raises(NotHandedOut):
                stash.give([back[0], 300])
        marks.change(back, me, None)
        stash.give(back)
        del mine[: len(back)]
    marks.change(mine, me, None)
    stash.give(mine)


def test_threads_that_take_and_give_beside_exchanges_never_have_the_same_block(
    request: pytest.FixtureRequest,
) -> None:
    stash, marks, free = Stash(6, 300), Marks(300), list(range(300))
    interval = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    sys.setswitchinterval(1e-6)
    draw = random.Random(4)
    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use, stash, marks, seed) for seed in range(4)]
        while not all(user.done() for user in users):
            exchange = stash.begin(draw.randrange(6), draw.choice([0, 0, 3]))
            if stash.is_open:
                marks.change(exchange.release, None, None)
                free += exchange.release
                stash.settle([free.pop() for _ in range(min(exchange.acquire, len(free)))])
    for user in users:
        user.result()
    assert not marks.wrong
    assert stash.handed_out == 0
    assert sorted(free + stash.empty().release) == list(range(300))
