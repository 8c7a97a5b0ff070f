import pytest

from kvblock.results import RefusalReason, Refused, StepResult
from kvblock_replay.checks import HeldBlocks, ReplayError
from kvblock_replay.modes import Mode, make_setup
from kvblock_replay.simulation import StepCall

REFUSED = Refused(RefusalReason.POOL_EXHAUSTED, 0, 1, 0.01)


def call(
    engine: int = 0, free: tuple[int, ...] = (), allocate: dict[int, int] | None = None
) -> StepCall:
    wanted = allocate or {}
    return StepCall(engine, list(free), list(wanted), list(wanted.values()), 0)


@pytest.fixture
def held() -> HeldBlocks:
    """Two engines, ten blocks; engine 0 holds 0 and 1 for sequence 5."""
    made = HeldBlocks(make_setup(Mode.SHARED, 2, 10, 16))
    made.apply(call(allocate={5: 2}), StepResult([0, 1], 1, None, [], 8))
    return made


def test_right_answers_pass(held: HeldBlocks) -> None:
    held.apply(call(1, allocate={5: 7, 6: 9}), StepResult([2, 3, 4, 5, 6, 7, 8], 1, REFUSED, [], 1))
    held.apply(call(0, allocate={5: 1}), StepResult([9], 1, None, [], 0))
    held.apply(call(0, free=(5,), allocate={7: 1}), StepResult([9], 1, None, [3], 2))
    held.apply(call(1, free=(5,)), StepResult([], 0, None, [7], 9))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (StepResult([2], 1, None, [2], 9), "number of blocks 1, expected 2"),
        (StepResult([2, 3, 4], 1, None, [2], 7), "number of blocks 3, expected 2"),
        (StepResult([2, 2], 1, None, [2], 8), "number of new blocks 1, expected 2"),
        (StepResult([2, 3], 1, None, [1], 8), r"freed_counts \[1\], expected \[2\]"),
        (StepResult([2, 3], 1, None, [], 8), r"freed_counts \[\], expected \[2\]"),
        (StepResult([2, 3], 1, REFUSED, [2], 8), "refused True, expected False"),
        (StepResult([], 0, None, [2], 10), "refused False, expected True"),
        (StepResult([2, 3], 1, None, [2], 7), "free_blocks 7, expected 8"),
    ],
)
def test_wrong_answers_are_errors(held: HeldBlocks, answer: StepResult, problem: str) -> None:
    with pytest.raises(ReplayError, match=problem) as found:
        held.apply(call(free=(5,), allocate={6: 2}), answer)
    assert str(found.value).startswith("pool 'shared': a step of engine 0 was answered with")


def test_block_of_another_engine_is_an_error(held: HeldBlocks) -> None:
    with pytest.raises(ReplayError, match="number of new blocks 0, expected 1"):
        held.apply(call(1, allocate={5: 1}), StepResult([1], 1, None, [], 7))


def test_split_pools_have_numbers_of_their_own() -> None:
    held = HeldBlocks(make_setup(Mode.SPLIT, 2, 3, 16))
    held.apply(call(0, allocate={0: 2}), StepResult([0, 1], 1, None, [], 0))
    held.apply(call(1, allocate={1: 1}), StepResult([0], 1, None, [], 0))
