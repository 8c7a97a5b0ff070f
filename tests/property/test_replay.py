"""The simulator over arbitrary small traces: it ends, conserves tokens, and repeats itself."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvblock_replay.cost import PATIENCE, blocks_needed
from kvblock_replay.simulation import Layout, Outcome
from kvblock_replay.trace import Request
from tests.unit.replay.pools import Pools, drive

BLOCK_SIZE = 4

lengths = st.integers(0, 40)
requests_in_order = st.lists(
    st.builds(Request, st.integers(0, 2_000_000_000), lengths, lengths), min_size=1, max_size=30
).map(sorted)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Few blocks, so that engines are in each other's way: one pool, one each, or any mixture."""
    blocks = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    pool_of_engine = draw(
        st.lists(st.integers(0, len(blocks) - 1), min_size=len(blocks), max_size=5)
    )
    return Layout(tuple(blocks), tuple(pool_of_engine), BLOCK_SIZE)


def steps_max(requests: list[Request], layout: Layout) -> int:
    """Every engine may wait out its patience between two tokens, and free and ask again after."""
    tokens = sum(1 + request.generated_tokens for request in requests)
    return 100 + (tokens + len(requests)) * (PATIENCE + 100) * len(layout.pool_of_engine)


def check_outcome(outcome: Outcome, requests: list[Request], layout: Layout) -> None:
    fitting = [
        request
        for index, request in enumerate(requests)
        if blocks_needed(request.prompt_tokens + max(0, request.generated_tokens - 1), BLOCK_SIZE)
        <= layout.pool_blocks[layout.pool_of_engine[index % len(layout.pool_of_engine)]]
    ]
    assert outcome.requests == len(requests)
    assert outcome.counts.finished == len(fitting) == len(outcome.waits_ns)
    assert outcome.skipped == len(requests) - len(fitting)
    assert outcome.counts.prompt_tokens == sum(request.prompt_tokens for request in fitting)
    assert outcome.counts.generated_tokens == sum(request.generated_tokens for request in fitting)
    assert all(wait >= 0 for wait in outcome.waits_ns)
    assert (outcome.counts.recomputed_tokens > 0) == (outcome.counts.preemptions > 0)
    assert outcome.peak_blocks <= outcome.total_blocks == sum(layout.pool_blocks)


def check_calls(pools: Pools, outcome: Outcome) -> None:
    assert outcome.steps == len(pools.calls)
    for call, result in pools.calls:
        assert len(call.allocate) == len(call.num_blocks)
        assert len(set(call.allocate)) == len(call.allocate)
        assert len(set(call.free)) == len(call.free)
        assert all(blocks > 0 for blocks in call.num_blocks)
        assert all(freed > 0 for freed in result.freed_counts)
    times = outcome.pool_use.times_ns
    assert all(earlier < later for earlier, later in pairwise(times))
    assert times[-1] == outcome.makespan_ns
    assert outcome.pool_use.blocks[-1] == 0


@given(requests_in_order, layouts())
def test_every_replay_ends_with_all_done_and_nothing_held(
    requests: list[Request], layout: Layout
) -> None:
    outcome, pools = drive(requests, layout, steps_max=steps_max(requests, layout))
    check_outcome(outcome, requests, layout)
    check_calls(pools, outcome)
    assert pools.held() == 0


@given(requests_in_order, layouts())
def test_same_input_same_calls_same_outcome(requests: list[Request], layout: Layout) -> None:
    first, again = (
        drive(requests, layout, steps_max=steps_max(requests, layout)) for _ in range(2)
    )
    assert first[0] == again[0]
    assert first[1].calls == again[1].calls


@given(requests_in_order, st.integers(1, 40))
def test_engine_alone_never_stands_still_for_long(requests: list[Request], blocks: int) -> None:
    """Alone in its pool, an engine that is refused helps itself at once: no two idle iterations."""
    layout = Layout((blocks,), (0,), BLOCK_SIZE)
    outcome, _ = drive(requests, layout, steps_max=steps_max(requests, layout))
    assert outcome.steps <= 2 * (outcome.counts.generated_tokens + outcome.counts.finished)
