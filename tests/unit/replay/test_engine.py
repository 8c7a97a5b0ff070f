import pytest

from kvblock_replay.cost import (
    BORROWING,
    ITERATION_NS,
    PATIENCE,
    PREFILL_TOKEN_NS,
    PREFILL_TOKENS_MAX,
    RUNNING_MAX,
    SEQUENCE_NS,
    blocks_needed,
)
from kvblock_replay.engine import Engine, Plan, Sequence
from kvblock_replay.trace import Request

PLENTY = 1_000_000


def engine(*requests: tuple[int, int], pool: int = PLENTY, shares: bool = False) -> Engine:
    """An engine of blocks of 4 tokens with (prompt, answer) in its queue, ids 0, 1, ..."""
    made = Engine(4, pool, shares_pool=shares)
    for number, (prompt, answer) in enumerate(requests):
        made.arrive(Sequence(number, Request(0, prompt, answer)))
    return made


def planned(made: Engine) -> Plan:
    plan = made.plan()
    assert plan is not None
    return plan


def iterate(made: Engine, *, granted: int | None = None, free: int = PLENTY, now: int = 0) -> Plan:
    plan = planned(made)
    made.apply(plan, len(plan.allocate) if granted is None else granted, free, now)
    return plan


@pytest.mark.parametrize(
    ("tokens", "blocks"), [(0, 1), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (10_000_000, 2_500_000)]
)
def test_blocks_needed(tokens: int, blocks: int) -> None:
    assert blocks_needed(tokens, 4) == blocks


def test_nothing_to_do() -> None:
    assert engine().plan() is None


def test_life_of_a_sequence() -> None:
    made = engine((4, 6))
    steps = [(p.free, p.allocate, p.num_blocks) for p in (iterate(made) for _ in range(7))]
    assert steps == [
        ([], [0], [1]),
        ([], [0], [1]),
        ([], [], []),
        ([], [], []),
        ([], [], []),
        ([], [0], [1]),
        ([0], [], []),
    ]
    assert made.plan() is None
    assert (made.counts.finished, made.counts.prompt_tokens) == (1, 4)
    assert made.counts.generated_tokens == 6


def test_last_token_takes_no_slot() -> None:
    made = engine((4, 1))
    assert iterate(made).num_blocks == [1]
    assert iterate(made).free == [0]


def test_answer_of_no_tokens_ends_with_its_prompt() -> None:
    made = engine((0, 0))
    assert iterate(made).num_blocks == [1]
    assert iterate(made).free == [0]
    assert made.counts.generated_tokens == 0


def test_time_of_an_iteration() -> None:
    made = engine((100, 5), (50, 5), (10_000, 5))
    plan = planned(made)
    assert made.apply(plan, 2, PLENTY, 0) == ITERATION_NS + 2 * SEQUENCE_NS + 150 * PREFILL_TOKEN_NS
    plan = planned(made)
    assert made.apply(plan, len(plan.growing), 0, 0) == ITERATION_NS + 2 * SEQUENCE_NS


def test_iteration_that_serves_nobody_waits() -> None:
    made = engine((100, 5))
    assert made.apply(planned(made), 0, 0, 0) == ITERATION_NS


def test_wait_is_from_arrival_to_first_admission() -> None:
    made = engine((4, 1))
    made.arrive(Sequence(9, Request(30, 4, 1)))
    iterate(made, granted=1, now=100)
    iterate(made, now=250)
    assert made.waits_ns == [100, 220]


def test_admission_is_first_come_first_served() -> None:
    made = engine((40, 2), (400, 2), (4, 2))
    plan = iterate(made, granted=1)
    assert (plan.allocate, plan.num_blocks) == ([0, 1, 2], [10, 100, 1])
    assert iterate(made, granted=1).allocate == [0, 1, 2]
    assert iterate(made).allocate == [1, 2]


def test_prompt_tokens_of_an_iteration_are_limited_but_one_always_goes() -> None:
    made = engine((PREFILL_TOKENS_MAX + 1, 9), (PREFILL_TOKENS_MAX, 9), (1, 9))
    assert iterate(made).allocate == [0]
    assert iterate(made).allocate == [1]
    assert [s.sequence_id for s in iterate(made).admitting] == [2]


def test_batch_is_limited() -> None:
    made = engine(*[(1, 9)] * (RUNNING_MAX + 1))
    assert len(iterate(made).allocate) == RUNNING_MAX
    assert iterate(made).admitting == []


def test_refused_growth_preempts_the_newest() -> None:
    made = engine((4, 9), (4, 9), (4, 9))
    iterate(made)
    plan = planned(made)
    assert plan.allocate == [0, 1, 2]
    made.apply(plan, 1, 0, 0)
    assert made.counts.preemptions == 1
    plan = iterate(made)
    assert (plan.free, plan.allocate) == ([2], [1])
    plan = iterate(made)
    assert (plan.free, plan.allocate, plan.num_blocks) == ([], [2], [2])
    assert made.counts.recomputed_tokens == 4 + 1


def test_refused_sequences_stand_still_while_others_run() -> None:
    made = engine((4, 9), (5, 9), (400, 9))
    iterate(made)
    plan = planned(made)
    assert plan.allocate == [0, 2]
    assert made.apply(plan, 0, 0, 0) == ITERATION_NS + SEQUENCE_NS


def test_as_many_are_preempted_as_the_refused_growth_needs() -> None:
    made = engine(*[(4, 9)] * 5)
    iterate(made)
    made.apply(planned(made), 1, 0, 0)
    assert planned(made).free == [4, 3]


def test_preempted_ones_return_to_the_head_in_their_order() -> None:
    made = engine(*[(4, 9)] * 5, (1, 1))
    iterate(made, granted=5)
    made.apply(planned(made), 1, 0, 0)
    plan = iterate(made)
    assert (plan.free, plan.admitting) == ([4, 3], [])
    assert [s.sequence_id for s in iterate(made).admitting] == [3, 4, 5]


def test_only_sequence_waits_and_is_preempted_in_the_end() -> None:
    made = engine((4, 9))
    iterate(made)
    for _ in range(PATIENCE):
        assert made.counts.preemptions == 0
        assert iterate(made, granted=0, free=0).free == []
    assert made.counts.preemptions == 1
    plan = iterate(made)
    assert (plan.free, plan.allocate) == ([0], [])
    assert iterate(made).num_blocks == [2]


def test_patience_begins_anew_after_a_grant() -> None:
    made = engine((4, 99))
    iterate(made)
    for _ in range(3):
        for _ in range(PATIENCE - 1):
            iterate(made, granted=0, free=0)
        for _ in range(4):
            iterate(made)
    assert made.counts.preemptions == 0


def test_engine_that_shares_leaves_blocks_for_the_others() -> None:
    requests = [(40, 9)] * 9
    alone = engine(*requests, pool=100)
    assert len(iterate(alone).allocate) == 9
    sharing = engine(*requests, pool=100, shares=True)
    plan = iterate(sharing)
    assert len(plan.allocate) == 8
    assert BORROWING * (100 - 80) == 80


def test_threshold_follows_what_the_last_step_answered() -> None:
    sharing = engine((40, 9), (40, 9), pool=100, shares=True)
    iterate(sharing, granted=1, free=14)
    assert [s.sequence_id for s in iterate(sharing, free=16).admitting] == []
    assert [s.sequence_id for s in iterate(sharing).admitting] == [1]


def test_first_of_a_batch_is_bound_by_no_threshold() -> None:
    sharing = engine((400, 9), (4, 9), pool=100, shares=True)
    assert iterate(sharing).allocate == [0]
