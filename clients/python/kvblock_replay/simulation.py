"""All engines of a replay in virtual time, and what came of it.

Rules:
  - `simulate` is a generator: it yields the Step that an engine makes and is sent its StepResult.
    Whoever drives it decides what a Step is made of; the simulation needs the pools' sizes only.
  - Virtual time is counted in nanoseconds from the trace's first request. The engine whose
    iteration begins first goes first; at the same moment the one with the smaller number. An engine
    with nothing to do sleeps until its next request. The order of the Steps, and with it every
    figure, follows from the input alone.
  - Request i goes to engine i mod engines. A request that needs more blocks than its pool has is
    counted as skipped and never queued; the others keep their engine.
  - Pool use is what the Steps answered: it holds from one Step to the next of any engine. Over
    several pools it is their sum.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

from kvblock.results import StepResult
from kvblock_replay.cost import blocks_needed
from kvblock_replay.engine import Counts, Engine, Sequence
from kvblock_replay.trace import Request


@dataclass(frozen=True, slots=True)
class Layout:
    """Which engine takes from which pool."""

    pool_blocks: tuple[int, ...]
    """Blocks of each pool."""
    pool_of_engine: tuple[int, ...]
    """For each engine the index of its pool."""
    block_size: int
    """Token slots per block, in every pool."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """The Step that an engine makes now, with policy IN_ORDER_UNTIL_REFUSED."""

    engine: int
    free: list[int]
    allocate: list[int]
    num_blocks: list[int]
    done: int
    """Requests that are finished or skipped up to now."""


@dataclass(slots=True)
class PoolUse:
    """Blocks held over virtual time, all pools together: a step function."""

    times_ns: array[int] = field(default_factory=lambda: array("q", [0]))
    """When it changed, in nanoseconds; never falls."""
    blocks: array[int] = field(default_factory=lambda: array("q", [0]))
    """Blocks held from that moment on."""

    def note(self, now_ns: int, held: int) -> None:
        """Take down that `held` blocks are held from `now_ns` on."""
        if held == self.blocks[-1]:
            return
        if now_ns == self.times_ns[-1]:
            self.blocks[-1] = held
        else:
            self.times_ns.append(now_ns)
            self.blocks.append(held)

    def spans(self, until_ns: int, count: int) -> list[float]:
        """Answer the mean of held blocks in each of `count` equal spans of 0 to `until_ns`."""
        areas = [0] * count
        ends = [*self.times_ns[1:], until_ns]
        for begin, end, held in zip(self.times_ns, ends, self.blocks, strict=True):
            span = begin * count // until_ns if until_ns else count
            while span < count and begin < end:
                # Times count in units of until_ns / count, so that the spans' borders are whole.
                border = min(end * count, (span + 1) * until_ns)
                areas[span] += held * (border - max(begin * count, span * until_ns))
                if border == end * count:
                    break
                span += 1
        return [area / until_ns for area in areas] if until_ns else [0.0] * count

    def mean(self, until_ns: int) -> float:
        """Answer the mean from 0 to `until_ns`, weighted by time; 0 when no time passed."""
        return self.spans(until_ns, 1)[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mode did, in virtual terms: the same for the same input, always."""

    requests: int
    skipped: int
    """Requests that need more blocks than their pool has."""
    counts: Counts
    """What all engines did together."""
    steps: int
    makespan_ns: int
    """From the first request's arrival to the last one's end."""
    waits_ns: list[int]
    """From arrival to first admission, of every finished request, sorted."""
    pool_use: PoolUse
    peak_blocks: int
    """Most blocks held right after a Step, all pools together."""
    total_blocks: int
    """Blocks of all pools together."""


Simulation = Generator[StepCall, StepResult, Outcome]


def simulate(requests: tuple[Request, ...], layout: Layout) -> Simulation:
    """Replay requests, sorted by arrival, through the engines of a layout."""
    engines = [
        Engine(
            layout.block_size,
            layout.pool_blocks[pool],
            shares_pool=layout.pool_of_engine.count(pool) > 1,
        )
        for pool in layout.pool_of_engine
    ]
    arrivals, skipped = _deal(requests, layout)
    held = [0] * len(layout.pool_blocks)
    use = PoolUse()
    steps = peak = 0
    done = skipped
    agenda = [(queue[0].arrival_ns, index) for index, queue in enumerate(arrivals) if queue]
    heapq.heapify(agenda)
    while agenda:
        now, index = heapq.heappop(agenda)
        engine, coming = engines[index], arrivals[index]
        while coming and coming[0].arrival_ns <= now:
            engine.arrive(coming.popleft())
        plan = engine.plan()
        if plan is None:
            if coming:
                heapq.heappush(agenda, (coming[0].arrival_ns, index))
            continue
        result = yield StepCall(index, plan.free, plan.allocate, plan.num_blocks, done)
        steps += 1
        done -= engine.counts.finished
        duration = engine.apply(plan, result.granted, result.free_blocks, now)
        done += engine.counts.finished
        pool = layout.pool_of_engine[index]
        held[pool] = layout.pool_blocks[pool] - result.free_blocks
        in_use = sum(held)
        peak = max(peak, in_use)
        use.note(now, in_use)
        heapq.heappush(agenda, (now + duration, index))
    return Outcome(
        requests=len(requests),
        skipped=skipped,
        counts=Counts.of(engine.counts for engine in engines),
        steps=steps,
        makespan_ns=max(engine.last_finish_ns for engine in engines),
        waits_ns=sorted(wait for engine in engines for wait in engine.waits_ns),
        pool_use=use,
        peak_blocks=peak,
        total_blocks=sum(layout.pool_blocks),
    )


def _deal(requests: tuple[Request, ...], layout: Layout) -> tuple[list[deque[Sequence]], int]:
    """Give each engine its requests and answer how many are too large for their pool."""
    arrivals: list[deque[Sequence]] = [deque() for _ in layout.pool_of_engine]
    skipped = 0
    for number, request in enumerate(requests):
        index = number % len(arrivals)
        tokens = request.prompt_tokens + max(0, request.generated_tokens - 1)
        capacity = layout.pool_blocks[layout.pool_of_engine[index]]
        if blocks_needed(tokens, layout.block_size) > capacity:
            skipped += 1
        else:
            arrivals[index].append(Sequence(number, request))
    return arrivals, skipped
