"""Counts what callers may cause as often as they like, and logs it sparsely.

Rules:
- Everything is counted. Of each kind a number of lines may be logged at once, and one more each
  second; the next line that is logged says how many there were meanwhile. So a flood of them does
  not fill a disk.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

_SECONDS_PER_LINE = 1.0

KindT = TypeVar("KindT", bound=Enum)


class Lines:
    """How many lines of one kind may be logged: `burst` at once, and one more each second."""

    def __init__(self, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._left_out = 0

    def take(self) -> int | None:
        """How many were left out since the last line; None: this one is to be left out, too."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) / _SECONDS_PER_LINE)
        self._at = now
        if self._left < 1:
            self._left_out += 1
            return None
        self._left -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class EventCounter(Generic[KindT]):
    """How many events there were since the server started, by kind: `counts`."""

    def __init__(
        self,
        logger: logging.Logger,
        event: str,
        kinds: type[KindT],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = dict.fromkeys(kinds, 0)
        self._logger = logger
        self._event = event
        self._lines = {kind: Lines(1, clock) for kind in kinds}

    def add(self, kind: KindT, **fields: str) -> None:
        """One more of a kind; `fields` stand in the log beside the kind's value."""
        self.counts[kind] += 1
        left_out = self._lines[kind].take()
        if left_out is not None:
            self._logger.warning(
                self._event, extra={"problem": kind.value, **fields, "failures": left_out + 1}
            )
