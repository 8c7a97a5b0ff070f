"""The log of leases: which begin, go on, end and expire.

Rules:
- An event is logged once, when it is carried out: what is asked again by its request_id is not
  logged again.
- An engine can attach as often as it likes, so the lines are bounded as in `event_counter`:
  LINES_AT_ONCE of each kind, so that a host full of engines is logged whole, then one each second.
- What an operator does is logged where it is served, and always.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum

from kvblock_service.event_counter import Lines

LINES_AT_ONCE = 1000

_log = logging.getLogger(__name__)


class LeaseEvent(Enum):
    """What has become of a lease; the value is the log's event."""

    ATTACHED = "an engine attached"
    RESUMED = "an engine resumed its lease"
    TAKEN_OVER = "an engine took a lease over"
    DETACHED = "an engine detached"
    EXPIRED = "a lease expired"


class LeaseLog:
    """Logs the events of one server; an expiry as a warning, all others for information."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = {event: Lines(LINES_AT_ONCE, clock) for event in LeaseEvent}

    def tell(
        self, event: LeaseEvent, pool: str, engine: str, epoch: int, **told: str | int
    ) -> None:
        """Log what has happened to the lease of an engine; `told` are further fields."""
        left_out = self._lines[event].take()
        if left_out is None:
            return
        if left_out:
            told["left_out"] = left_out
        level = logging.WARNING if event is LeaseEvent.EXPIRED else logging.INFO
        fields = {"pool": pool, "engine": engine, "epoch": epoch, **told}
        _log.log(level, event.value, extra=fields)
