"""How two or more things are compared on a machine whose speed changes from moment to moment.

Rules:
- A round gives every subject one slice of the same requests, a few dozen calls; rounds follow one
  another until the time is up. The order turns from round to round, so that nobody is always first.
- A ratio is taken within each round, of the medians of two slices that ran within milliseconds of
  each other; the figure is the median of the rounds' ratios. What slows the whole machine down for
  longer than a round cancels out; what hits a single round is outvoted.
- p50 and p99 are of all calls of all rounds.
- The first rounds warm up and are not counted. The garbage collector runs between rounds only.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

RequestT = TypeVar("RequestT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)

Tick = Callable[[float], None]
"""Gets after each round how much of the measurement is done: 0 to 1."""


class Subject(Protocol[RequestT_contra]):
    """Something that can be asked."""

    async def run(self, requests: Sequence[RequestT_contra]) -> list[int]:
        """Make these requests one after the other; answers the nanoseconds that each took."""


class Plan(NamedTuple):
    """How long to measure: at least `rounds` rounds of `calls` calls, and until `seconds` are up.

    `warm_up` rounds go before and are not counted.
    """

    seconds: float
    calls: int = 25
    rounds: int = 5
    warm_up: int = 2


class Latencies(NamedTuple):
    """One subject's calls: microseconds, and how many calls they were."""

    p50_us: float
    p99_us: float
    calls: int


class Comparison:
    """What one interleaved run measured: for each subject, its slices in order."""

    def __init__(self, slices: Mapping[str, list[list[int]]]) -> None:
        self._slices = slices
        self._medians = {name: [median(took) for took in of] for name, of in slices.items()}

    def ratio(self, numerator: str, denominator: str) -> float:
        """How many times longer a call of one subject takes than a call of another."""
        pairs = zip(self._medians[numerator], self._medians[denominator], strict=True)
        return median(above / below for above, below in pairs)

    def latencies(self, name: str) -> Latencies:
        """The p50 and p99 of one subject."""
        calls = sorted(call for of in self._slices[name] for call in of)
        last = len(calls) - 1
        return Latencies(
            round(calls[last // 2] / 1000, 1),
            round(calls[min(last, round(0.99 * last))] / 1000, 1),
            len(calls),
        )

    def details(self) -> dict[str, object]:
        """All subjects' latencies, for the JSON."""
        rounds = {"rounds": len(next(iter(self._slices.values())))}
        return rounds | {name: self.latencies(name)._asdict() for name in self._slices}


async def interleave(
    subjects: Mapping[str, Subject[RequestT]],
    make_requests: Callable[[int], Sequence[RequestT]],
    plan: Plan,
    tick: Tick = lambda _: None,
) -> Comparison:
    """Compare subjects by the same requests; `make_requests(n)` gives the next n of them."""
    slices: dict[str, list[list[int]]] = {name: [] for name in subjects}
    order = list(subjects)
    for _ in range(plan.warm_up):
        await _round(subjects, order, make_requests(plan.calls))
    started = time.monotonic()
    done = 0.0
    rounds = 0
    while rounds < plan.rounds or done < 1:
        for name, took in (await _round(subjects, order, make_requests(plan.calls))).items():
            slices[name].append(took)
        rounds += 1
        order.append(order.pop(0))
        spent = time.monotonic() - started
        done = min(spent / plan.seconds if plan.seconds else 1.0, rounds / plan.rounds)
        tick(min(1.0, done))
    return Comparison(slices)


async def _round(
    subjects: Mapping[str, Subject[RequestT]], order: Sequence[str], requests: Sequence[RequestT]
) -> dict[str, list[int]]:
    gc.collect(0)
    gc.disable()
    try:
        return {name: await subjects[name].run(requests) for name in order}
    finally:
        gc.enable()
