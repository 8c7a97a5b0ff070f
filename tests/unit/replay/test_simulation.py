import pytest

from kvblock_replay.cost import ITERATION_NS, PREFILL_TOKEN_NS, SEQUENCE_NS
from kvblock_replay.simulation import Layout, PoolUse
from kvblock_replay.trace import Request
from tests.unit.replay.pools import drive, shared

SECOND = 1_000_000_000


def test_nothing_that_fits() -> None:
    outcome, pools = drive([Request(0, 100, 1)], shared(1, 6), steps_max=0)
    assert (outcome.requests, outcome.skipped, outcome.counts.finished) == (1, 1, 0)
    assert (outcome.makespan_ns, outcome.waits_ns, outcome.steps) == (0, [], 0)
    assert pools.calls == []


def test_one_request() -> None:
    outcome, _ = drive([Request(0, 100, 3)], shared(1, 7), steps_max=4)
    assert outcome.counts.finished == 1
    assert outcome.counts.prompt_tokens == 100
    assert outcome.counts.generated_tokens == 3
    assert outcome.steps == 4
    assert outcome.makespan_ns == 3 * (ITERATION_NS + SEQUENCE_NS) + 100 * PREFILL_TOKEN_NS
    assert outcome.peak_blocks == 7
    assert outcome.total_blocks == 7
    assert outcome.pool_use.mean(outcome.makespan_ns) == 7
    assert outcome.waits_ns == [0]


def test_requests_are_dealt_in_turn() -> None:
    requests = [Request(0, 1, 1)] * 7
    _, pools = drive(requests, shared(3, 100), steps_max=100)
    by_engine = {call.engine: call.allocate for call, _ in pools.calls if call.allocate}
    assert by_engine == {0: [0, 3, 6], 1: [1, 4], 2: [2, 5]}


def test_skipped_request_leaves_the_others_their_engine() -> None:
    requests = [Request(0, 1, 1), Request(0, 9999, 1), Request(0, 1, 1), Request(0, 1, 1)]
    outcome, pools = drive(requests, shared(2, 10), steps_max=100)
    by_engine = {call.engine: call.allocate for call, _ in pools.calls if call.allocate}
    assert by_engine == {0: [0, 2], 1: [3]}
    assert outcome.skipped == 1


def test_largest_request_that_fits() -> None:
    outcome, _ = drive([Request(0, 100, 61), Request(0, 100, 62)], shared(1, 10), steps_max=100)
    assert (outcome.counts.finished, outcome.skipped) == (1, 1)


def test_idle_time_costs_no_step() -> None:
    outcome, pools = drive(
        [Request(0, 1, 1), Request(86_400 * SECOND, 1, 1)], shared(1, 1), steps_max=10
    )
    assert [(call.free, call.allocate) for call, _ in pools.calls] == [
        ([], [0]),
        ([0], []),
        ([], [1]),
        ([1], []),
    ]
    iteration = ITERATION_NS + SEQUENCE_NS + PREFILL_TOKEN_NS
    assert outcome.makespan_ns == 86_400 * SECOND + iteration
    assert outcome.pool_use.mean(outcome.makespan_ns) == 2 * iteration / outcome.makespan_ns


def test_engine_whose_iteration_begins_first_goes_first_then_the_smaller_number() -> None:
    requests = [Request(0, 1, 2), Request(0, 1, 2), Request(5, 1, 1), Request(5, 1, 1)]
    _, pools = drive(requests, shared(4, 100), steps_max=100)
    assert [call.engine for call, _ in pools.calls] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_split_pools_do_not_meet() -> None:
    layout = Layout((4, 3), (0, 1), 16)
    requests = [Request(0, 64, 1), Request(0, 64, 1), Request(0, 64, 1), Request(0, 48, 1)]
    outcome, pools = drive(requests, layout, steps_max=100)
    assert (outcome.counts.finished, outcome.skipped) == (3, 1)
    assert outcome.total_blocks == 7
    assert outcome.peak_blocks == 7
    assert pools.held() == 0


def test_two_engines_that_fill_the_pool_with_one_sequence_each_both_end() -> None:
    requests = [Request(0, 64, 100), Request(0, 64, 100)]
    outcome, pools = drive(requests, shared(2, 12), steps_max=1000)
    assert outcome.counts.finished == 2
    assert outcome.counts.preemptions > 0
    assert outcome.counts.generated_tokens == 200
    assert pools.held() == 0


@pytest.mark.parametrize(
    ("until", "mean"), [(0, 0.0), (10, 0.0), (20, 2.0), (40, (10 * 4 + 10 * 8) / 40)]
)
def test_mean_pool_use_is_weighted_by_time(until: int, mean: float) -> None:
    use = PoolUse()
    for now, held in [(10, 3), (10, 4), (15, 4), (20, 8), (30, 0), (30, 0)]:
        use.note(now, held)
    assert use.mean(until) == mean
    assert list(use.times_ns) == [0, 10, 20, 30]
    assert list(use.blocks) == [0, 4, 8, 0]
