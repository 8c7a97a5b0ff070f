"""Counts what callers may cause as often as they like, and logs it sparsely.

Rules:
- Everything is counted. At most one line a second is logged for each kind; it says how many there
  were since the last one, so that a flood of them does not fill a disk.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

_SECONDS_BETWEEN_LINES = 1.0

KindT = TypeVar("KindT", bound=Enum)


class Tally(Generic[KindT]):
    """How many there were since the server started, by kind: `counts`."""

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
        self._clock = clock
        self._logged: dict[KindT, tuple[float, int]] = {}

    def add(self, kind: KindT, **told: str) -> None:
        """One more of a kind; `told` is said in the log beside the kind's value."""
        total = self.counts[kind] = self.counts[kind] + 1
        now = self._clock()
        at, before = self._logged.get(kind, (-_SECONDS_BETWEEN_LINES, 0))
        if now - at >= _SECONDS_BETWEEN_LINES:
            self._logged[kind] = (now, total)
            self._logger.warning(
                self._event, extra={"problem": kind.value, **told, "failures": total - before}
            )
