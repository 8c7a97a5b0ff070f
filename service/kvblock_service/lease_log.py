"""What becomes of leases, told in the log: who came, who went, and who was lost.

Rules:
- Told when it is carried out, once: what is asked again by its request_id is not told again.
- An engine can attach as often as it likes, so the lines are bounded as `tally` says: LINES_AT_ONCE
  of each kind, so that a host full of engines is told of whole, then one each second.
- What an operator does is told where it is served, and always.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum

from kvblock_service.tally import Lines

LINES_AT_ONCE = 1000

_log = logging.getLogger(__name__)


class LeaseEvent(Enum):
    """What has become of a lease; the value is what the log says."""

    ATTACHED = "an engine attached"
    RESUMED = "an engine resumed its lease"
    TAKEN_OVER = "an engine took a lease over"
    DETACHED = "an engine detached"
    EXPIRED = "a lease ran out"


class LeaseLog:
    """Logs the events of one server; an expiry as a warning, all others for information."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = {event: Lines(LINES_AT_ONCE, clock) for event in LeaseEvent}

    def tell(
        self, event: LeaseEvent, pool: str, engine: str, epoch: int, **told: str | int
    ) -> None:
        """It has happened to the lease of an engine; `told` is said beside whose it is."""
        left_out = self._lines[event].take()
        if left_out is None:
            return
        fields: dict[str, str | int] = {"pool": pool, "engine": engine, "epoch": epoch, **told}
        if left_out:
            fields["left_out"] = left_out
        level = logging.WARNING if event is LeaseEvent.EXPIRED else logging.INFO
        _log.log(level, event.value, extra=fields)
