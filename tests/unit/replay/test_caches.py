"""Engines that keep the blocks of ended sequences: what they keep, and what they give back."""

from dataclasses import replace
from random import Random

from kvblock_replay.simulation import Layout
from kvblock_replay.trace import Request
from tests.unit.replay.pools import drive, shared

SECOND = 1_000_000_000
BLOCK = 16


def hoarding(engines: int, blocks: int, *, recall: bool) -> Layout:
    return replace(shared(engines, blocks), caches=True, recall=recall)


def test_cache_is_kept_until_its_engine_needs_the_blocks() -> None:
    requests = [Request(at * SECOND, 4 * BLOCK, 1) for at in range(4)]
    outcome, pools = drive(requests, hoarding(1, 10, recall=False), steps_max=100)
    assert outcome.counts.finished == 4
    # Two fit beside each other; then the oldest goes for the newest, and at last all go.
    assert [(call.free, call.allocate) for call, _ in pools.calls] == [
        ([], [0]),
        ([], [1]),
        ([0], [2]),
        ([1], [3]),
        ([2, 3], []),
    ]
    assert outcome.peak_blocks == 4


def test_engine_that_sleeps_on_its_cache_is_woken_by_who_lacks_blocks() -> None:
    requests = [Request(0, 8 * BLOCK, 1), Request(SECOND, 8 * BLOCK, 1), Request(90 * SECOND, 1, 1)]
    # Engine 0 has the first and the last request, and sleeps between them.
    starved, _ = drive(requests, hoarding(2, 10, recall=False), steps_max=10_000)
    served, pools = drive(requests, hoarding(2, 10, recall=True), steps_max=20)
    assert starved.waits_ns[-1] > 80 * SECOND
    assert served.waits_ns[-1] < SECOND
    payer = next(call for call, _ in pools.calls if call.free == [0])
    assert (payer.engine, payer.allocate) == (0, [])
    assert pools.held() == 0


def test_cache_in_a_pool_of_its_own_stands_in_nobodys_way() -> None:
    random = Random(5)
    requests = sorted(
        Request(random.randrange(20 * SECOND), random.randrange(1, 400), random.randrange(1, 60))
        for _ in range(60)
    )
    layout = Layout((40, 40), (0, 1), BLOCK)
    plain, _ = drive(requests, layout, steps_max=100_000)
    caching, pools = drive(requests, replace(layout, caches=True), steps_max=100_000)
    # But for iterations that do nothing but free, which an engine with a cache does not make.
    assert sum(caching.waits_ns) <= sum(plain.waits_ns)
    assert caching.counts.preemptions <= plain.counts.preemptions
    assert caching.makespan_ns <= plain.makespan_ns
    assert pools.held() == 0


def test_recall_ends_as_if_nobody_hoarded_and_the_same_each_time() -> None:
    random = Random(6)
    requests = sorted(
        Request(random.randrange(20 * SECOND), random.randrange(1, 400), random.randrange(1, 60))
        for _ in range(90)
    )
    free, _ = drive(requests, shared(3, 90), steps_max=100_000)
    hoard, _ = drive(requests, hoarding(3, 90, recall=False), steps_max=100_000)
    recall, pools = drive(requests, hoarding(3, 90, recall=True), steps_max=100_000)
    again, _ = drive(requests, hoarding(3, 90, recall=True), steps_max=100_000)
    assert again == recall
    assert pools.held() == 0
    assert sum(recall.waits_ns) < sum(hoard.waits_ns)
    assert sum(recall.waits_ns) < 1.5 * sum(free.waits_ns)


def test_engine_that_lacks_blocks_for_its_queue_gives_its_own_cache_first() -> None:
    # The second request of engine 0 fits only without the cache that the first one left, and
    # without what engine 1 keeps.
    requests = [
        Request(0, 4 * BLOCK, 1),
        Request(0, 4 * BLOCK, 1),
        Request(SECOND, 10 * BLOCK, 1),
        Request(90 * SECOND, 1, 1),
    ]
    outcome, pools = drive(requests, hoarding(2, 10, recall=True), steps_max=20)
    frees = [(call.engine, call.free) for call, _ in pools.calls if call.free]
    assert frees[:2] == [(0, [0]), (1, [1])]
    assert outcome.waits_ns[-1] < SECOND


def test_blocks_of_a_cache_are_not_in_use_while_its_engine_sleeps() -> None:
    requests = [Request(0, 4 * BLOCK, 1), Request(100 * SECOND, 4 * BLOCK, 1)]
    outcome, _ = drive(requests, hoarding(1, 10, recall=True), steps_max=10)
    busy, quiet = outcome.pool_use.spans(100 * SECOND, 100)[:2]
    assert 0 < busy < 4
    assert quiet == 0
