"""Whether the numbers of a trace are seconds or milliseconds.

Rules:
  - What the user says counts, then the order of magnitude, then the format, then the rate.
  - The order of magnitude is certain when every number is a moment of 2001 to 2099, counted from
    1970 in one of the two units: in the other it would be a trace that begins days, or thousands of
    years, after its own origin.
  - A format is certain when its fields have one meaning: see `formats`.
  - The rate is certain when the other unit would be absurd: more than a thousand requests a second,
    or less than one in ten minutes, in the mean over at least a hundred requests.
  - Anything else is refused, with the option that says it. Requests that all arrive together need
    no unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from kvblock_replay.fields import BILLION, BadLine

REQUESTS_MIN = 100
"""Fewer say nothing about a rate."""
SECONDS_BELOW = 1
"""A mean distance below: as milliseconds it would be more than a thousand requests a second."""
MILLISECONDS_ABOVE = 600
"""A mean distance above: as seconds it would be less than a request in ten minutes."""
SECONDS_MAX = 9_000_000_000
"""Latest legal number of seconds: the nanoseconds still fit 63 bits."""

_EPOCH_FROM = 1_000_000_000 * BILLION
_EPOCH_TO = 4_100_000_000 * BILLION


class TimeUnit(str, Enum):
    """What the numbers of a trace count."""

    SECONDS = "s"
    MILLISECONDS = "ms"

    @property
    def word(self) -> str:
        """The unit in words."""
        return self.name.lower()


def choose_unit(arrivals: Sequence[int], by_fields: TimeUnit | None) -> TimeUnit:
    """The unit of arrivals, which are in billionths of it; `by_fields` is what the format says.

    Raises BadLine when it is not certain.
    """
    first, last = min(arrivals), max(arrivals)
    for unit, factor in ((TimeUnit.SECONDS, 1), (TimeUnit.MILLISECONDS, 1000)):
        if _EPOCH_FROM * factor <= first and last <= _EPOCH_TO * factor:
            return unit
    if by_fields is not None or first == last:
        return by_fields or TimeUnit.MILLISECONDS
    distance = (last - first) / BILLION / (len(arrivals) - 1)
    if len(arrivals) >= REQUESTS_MIN:
        if distance < SECONDS_BELOW:
            return TimeUnit.SECONDS
        if distance > MILLISECONDS_ABOVE:
            return TimeUnit.MILLISECONDS
    raise BadLine(
        f"its timestamps may be seconds or milliseconds: {len(arrivals):,} requests come every"
        f" {distance:.3g} of them in the mean; say which with --time-unit s or --time-unit ms"
    )


def nanoseconds(arrival: int, unit: TimeUnit) -> int:
    """An arrival in billionths of a unit, in nanoseconds; no floats, so that it is exact.

    Raises BadLine when it is too far away.
    """
    if unit is TimeUnit.MILLISECONDS:
        return arrival // 1000
    if arrival > SECONDS_MAX * BILLION:
        raise BadLine(
            f"a timestamp is {arrival // BILLION} seconds: wanted at most {SECONDS_MAX};"
            " for milliseconds, give --time-unit ms"
        )
    return arrival
