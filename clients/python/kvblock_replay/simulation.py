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
    several pools it is their sum. Blocks of caches are not in use.
  - An engine that owes and has nothing to do is woken at once, as by a push.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

from kvblock.hints import EngineHints
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
    caches: bool = False
    """Whether engines keep the blocks of ended sequences."""
    recall: bool = False
    """Whether they say so, and give back what they owe."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """The Step that an engine makes now, with policy IN_ORDER_UNTIL_REFUSED."""

    engine: int
    free: list[int]
    allocate: list[int]
    num_blocks: list[int]
    done: int
    """Requests that are finished or skipped up to now."""
    hints: EngineHints | None = None
    """What the engine says of itself beside it."""


@dataclass(frozen=True, slots=True)
class OwedCall:
    """An engine that makes no Step asks what it owes, by a renewal: the push that it would get."""

    engine: int
    hints: EngineHints
    """What it says of itself beside it."""


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


Asking = Generator[OwedCall, StepResult | int, None]
Simulation = Generator[StepCall | OwedCall, StepResult | int, Outcome]


def simulate(requests: tuple[Request, ...], layout: Layout) -> Simulation:
    """Replay requests, sorted by arrival, through the engines of a layout."""
    engines = [
        Engine(
            layout.block_size,
            layout.pool_blocks[pool],
            shares_pool=layout.pool_of_engine.count(pool) > 1,
            caches=layout.caches,
        )
        for pool in layout.pool_of_engine
    ]
    arrivals, skipped = _deal(requests, layout)
    held = [0] * len(layout.pool_blocks)
    cached = [0] * len(engines)
    use = PoolUse()
    steps = peak = 0
    done = skipped
    agenda = _Agenda({index: queue[0].arrival_ns for index, queue in enumerate(arrivals) if queue})
    while (turn := agenda.next()) is not None:
        now, index = turn
        engine, coming = engines[index], arrivals[index]
        while coming and coming[0].arrival_ns <= now:
            engine.arrive(coming.popleft())
        if not coming and not engine.has_work:
            # It has seen its last request: nobody keeps a cache for nothing.
            engine.owed_blocks = engine.cached_blocks
        plan = engine.plan()
        # What ended in its last iteration is a cache's from now on.
        cached[index] = engine.cached_blocks
        if plan is None:
            use.note(now, sum(held) - sum(cached))
            if coming:
                agenda.sleep(index, coming[0].arrival_ns)
            continue
        hints = EngineHints(plan.want, engine.cached_blocks) if layout.recall else None
        result = yield StepCall(index, plan.free, plan.allocate, plan.num_blocks, done, hints)
        assert isinstance(result, StepResult)
        steps += 1
        if layout.recall:
            engine.owed_blocks = result.owed_blocks
            if plan.want > len(result.block_numbers):
                yield from _ask_sleepers(engines, agenda, now)
        done -= engine.counts.finished
        duration = engine.apply(plan, result.granted, result.free_blocks, now)
        done += engine.counts.finished
        pool = layout.pool_of_engine[index]
        held[pool] = layout.pool_blocks[pool] - result.free_blocks
        use.note(now, sum(held) - sum(cached))
        peak = max(peak, use.blocks[-1])
        agenda.add(index, now + duration)
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


class _Agenda:
    """Whose turn is when; who is asleep until its next request."""

    def __init__(self, begin: dict[int, int]) -> None:
        self.asleep: dict[int, int] = {}
        self._turns = [(at, index) for index, at in begin.items()]
        heapq.heapify(self._turns)
        self._at = dict(begin)

    def add(self, index: int, at: int) -> None:
        """An engine's next iteration begins at that moment."""
        self._at[index] = at
        heapq.heappush(self._turns, (at, index))

    def sleep(self, index: int, until: int) -> None:
        """An engine has nothing to do before that moment."""
        self.asleep[index] = until
        self.add(index, until)

    def wake(self, index: int, now: int) -> None:
        """An engine that is asleep has something to do now."""
        self.add(index, now)

    def next(self) -> tuple[int, int] | None:
        """The moment of the next iteration, and the engine."""
        while self._turns:
            at, index = heapq.heappop(self._turns)
            # An engine that was woken has left its former turn behind.
            if self._at.get(index) == at:
                del self._at[index]
                self.asleep.pop(index, None)
                return at, index
        return None


def _ask_sleepers(engines: list[Engine], agenda: _Agenda, now: int) -> Asking:
    """Ask what those owe that are asleep on their caches, and wake who owes anything."""
    for index in [one for one in agenda.asleep if engines[one].cached_blocks]:
        owed = yield OwedCall(index, EngineHints(0, engines[index].cached_blocks))
        assert isinstance(owed, int)
        engines[index].owed_blocks = owed
        if owed:
            agenda.wake(index, now)


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
