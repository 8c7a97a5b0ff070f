"""Synthetic traces: bursts, heavy tails, and load that moves from engine to engine.

Rules:
  - The same parameters give the same bytes on every Python and every machine: the only random
    source is `random.Random(seed).random()`, whose sequence Python promises to keep, and what is
    made of it are comparisons, multiplications and truncations, no library function.
  - Time runs in slots of 10 ms. A slot brings a request with probability rate * 10 ms, at a uniform
    moment in it, so arrivals are nearly Poisson. The rate is drawn anew each second: a burst of 2.5
    times the mean with probability 1/4, else half of it.
  - Request i is meant for engine i mod `engines`, the engine that a replay with as many gives it
    to. Time is cut into phases; in phase p engine p mod `engines` is the busy one: its requests
    carry long prompts and answers, those of the others short ones. A fixed share per engine is then
    too small for the busy one and idle for the rest.
  - Lengths are heavy-tailed: a scale, doubled with probability `_TAIL` again and again up to 3
    times, then spread uniformly over the octave above (a Pareto tail with exponent 1.3 in steps).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kvblock_replay.formats import AZURE_COLUMNS

_SLOTS_PER_SECOND = 100
_TICKS_PER_SLOT = 100_000
_TICKS_PER_SECOND = _SLOTS_PER_SECOND * _TICKS_PER_SLOT
_BURST_PROBABILITY = 0.25
_BURST_FACTOR = 2.5
_CALM_FACTOR = 0.5
_TAIL = 0.4
_DOUBLINGS_MAX = 3
_BUSY_PROMPT, _QUIET_PROMPT = 640, 64
_BUSY_ANSWER, _QUIET_ANSWER = 64, 16
_START = datetime(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The parameters of a synthetic trace; by default those of the one in the package."""

    seed: int = 1
    """Any whole number from 0 on."""
    requests: int = 360
    """Requests to make, at least 1."""
    engines: int = 3
    """Engines among which the load moves, at least 1."""
    rate: float = 8.0
    """Mean requests per second over all engines, above 0, at most 40."""
    phase: int = 10
    """Seconds for which one engine stays the busy one, at least 1."""


RATE_MAX = _SLOTS_PER_SECOND / _BURST_FACTOR


def generate(parameters: Synthetic) -> Iterator[str]:
    """Yield the lines of a trace in Azure's format, header first, each with its line feed.

    Raises ValueError when a parameter is outside its range.
    """
    _check(parameters)
    yield ",".join(AZURE_COLUMNS) + "\n"
    draw = random.Random(parameters.seed).random
    for index, tick in zip(range(parameters.requests), _arrivals(parameters, draw), strict=False):
        phase = tick // (_TICKS_PER_SECOND * parameters.phase)
        busy = index % parameters.engines == phase % parameters.engines
        prompt = _length(draw, _BUSY_PROMPT if busy else _QUIET_PROMPT)
        answer = _length(draw, _BUSY_ANSWER if busy else _QUIET_ANSWER)
        yield f"{_timestamp(tick)},{prompt},{answer}\n"


def _check(parameters: Synthetic) -> None:
    if parameters.seed < 0:
        raise ValueError(f"seed is {parameters.seed}: wanted a whole number from 0 on")
    for name in ("requests", "engines", "phase"):
        value = getattr(parameters, name)
        if value < 1:
            raise ValueError(f"{name} is {value}: wanted at least 1")
    if not 0 < parameters.rate <= RATE_MAX:
        raise ValueError(
            f"rate is {parameters.rate}: wanted requests per second above 0, at most {RATE_MAX:g}"
        )


def _arrivals(parameters: Synthetic, draw: Callable[[], float]) -> Iterator[int]:
    """Yield the moments of arrival, in ticks of 100 ns."""
    second = 0
    while True:
        factor = _BURST_FACTOR if draw() < _BURST_PROBABILITY else _CALM_FACTOR
        probability = parameters.rate * factor / _SLOTS_PER_SECOND
        for slot in range(second * _SLOTS_PER_SECOND, (second + 1) * _SLOTS_PER_SECOND):
            if draw() < probability:
                yield slot * _TICKS_PER_SLOT + int(draw() * _TICKS_PER_SLOT)
        second += 1


def _length(draw: Callable[[], float], scale: int) -> int:
    doublings = 0
    while doublings < _DOUBLINGS_MAX and draw() < _TAIL:
        scale *= 2
        doublings += 1
    return scale + int(draw() * scale)


def _timestamp(tick: int) -> str:
    seconds, fraction = divmod(tick, _TICKS_PER_SECOND)
    return f"{_START + timedelta(seconds=seconds)}.{fraction:07}"
