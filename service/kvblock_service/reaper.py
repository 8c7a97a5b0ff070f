"""Ends what time has ended: leases that ran out, and quarantines whose time has passed.

Rules:
- A lease runs out only while the server could have heard of a renewal. After a stall of the process
  (stopped, swapped out, busy) every lease gets its full TTL again before anything expires, and
  every quarantine its full time, as after a restart. A tick that is only late is judged by the
  moment when it was due: the renewals that came meanwhile are read before the next one.
- The clock is the host's monotonic one: the wall clock may jump as it likes.
- While the journal cannot be written nothing expires.
- The reaper ends with an error or with the server, never silently: `run` raises.
"""

import asyncio
import logging
from collections.abc import Callable

from kvblock_service.core import leases
from kvblock_service.core.commands import EndQuarantine, Expire, Freed
from kvblock_service.host import Host
from kvblock_service.lease_log import LeaseEvent
from kvblock_service.pool_host import PoolHost, monotonic_ms

TICK_SECONDS = 0.1
STALL_MS = 400
"""A tick that is later than this says that the process stood still."""

_log = logging.getLogger(__name__)


class Reaper:
    """Looks at all pools of a host ten times a second."""

    def __init__(self, host: Host, now_ms: Callable[[], int] = monotonic_ms) -> None:
        self._host = host
        self._now_ms = now_ms
        self._looked_ms = now_ms()

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.look()

    def look(self) -> None:
        """One tick."""
        now_ms = self._now_ms()
        stalled_ms = now_ms - self._looked_ms - round(TICK_SECONDS * 1000)
        self._looked_ms = now_ms
        pools = list(self._host.pools.values())
        if stalled_ms > STALL_MS:
            _log.warning(
                "the server stood still; every lease and quarantine gets its full time again",
                extra={"stalled_ms": stalled_ms},
            )
            for pool in pools:
                pool.locked(leases.begin_anew, now_ms)
            return
        for pool in pools:
            # What comes out of quarantine soon, and what engines said long ago.
            pool.recall.changed()
            if not pool.writable:
                # Nobody could renew by a step: their time does not count.
                pool.locked(leases.full_ttl, now_ms)
            else:
                self._reap(pool, now_ms - max(0, stalled_ms))

    def _reap(self, pool: PoolHost, now_ms: int) -> None:
        name = pool.geometry.name
        for command in pool.locked(leases.due, now_ms, pool.quarantine_ms):
            if not pool.writable:
                # The command before could not be written; what is left is due at a later tick.
                return
            freed, _ = pool.apply(command)
            assert isinstance(freed, Freed)
            if isinstance(command, Expire):
                self._host.leases.tell(
                    LeaseEvent.EXPIRED,
                    name,
                    command.engine,
                    command.epoch,
                    blocks=freed.num_blocks,
                    quarantine_ms=command.quarantine_ms,
                )
                self._host.end_session(name, command.engine, command.epoch)
            elif isinstance(command, EndQuarantine):
                _log.info("a quarantine ended", extra={"pool": name, "blocks": freed.num_blocks})
