"""Everything a server holds: its pools, its live sessions, and whether it is draining.

Rules:
- Pools are fixed when the server starts; they are listed in order of their names.
- At most one live session is attached under an engine's name in a pool.
- Once draining has begun it does not end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvblock_service.errors import Draining, EngineAttached, InvalidField, PoolNotFound, StateLimit
from kvblock_service.pool_host import PoolHost


class HostLimits(NamedTuple):
    """Limits that hold for a server as a whole."""

    sessions_max: int
    drain_retry_after: float


class LiveSession:
    """A session that is attached."""

    def __init__(self, pool: str, engine: str) -> None:
        self.key = (pool, engine)
        self.ended = asyncio.Event()


class Host:
    """The pools and sessions of one server.

    `server_epoch` grows with every start that begins with empty pools (milliseconds since 1970 at
    the start); `handover_wait` is how long, in seconds, an attach waits for a session under the
    same name whose stream is just ending. `streams` holds for each open stream, attached or not,
    what ends it when it is idle.
    """

    handover_wait = 1.0

    def __init__(
        self, pools: Sequence[PoolHost], default_pool: str, limits: HostLimits, server_epoch: int
    ) -> None:
        self.pools = {pool.geometry.name: pool for pool in pools}
        self.pools = dict(sorted(self.pools.items()))
        only = next(iter(self.pools)) if len(self.pools) == 1 else ""
        self.default_pool = default_pool or only
        self.server_epoch = server_epoch
        self.draining = False
        self.sessions: dict[tuple[str, str], LiveSession] = {}
        self.streams: dict[object, Callable[[], None]] = {}
        self._limits = limits

    def pool(self, name: str) -> PoolHost:
        """The pool of that name; the default pool for an empty name.

        Raises:
            InvalidField: no name was given and the server has no default pool.
            PoolNotFound: no pool has that name.

        """
        pool = self.pools.get(name or self.default_pool)
        if pool is None:
            if not name:
                raise InvalidField("pool", "", f"is empty; name one of: {', '.join(self.pools)}")
            raise PoolNotFound(name, list(self.pools))
        return pool

    async def attach(self, session: LiveSession) -> None:
        """Make a session the live one under its name.

        Raises:
            EngineAttached: another one is and stays.
            StateLimit: as many sessions are live as `sessions_max` permits.

        """
        deadline = time.monotonic() + self.handover_wait
        while (before := self.sessions.get(session.key)) is not None:
            try:
                await asyncio.wait_for(before.ended.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise EngineAttached(*session.key) from None
        self.refuse_when_draining()
        if len(self.sessions) >= self._limits.sessions_max:
            raise StateLimit("sessions_max", self._limits.sessions_max)
        self.sessions[session.key] = session

    def leave(self, session: LiveSession) -> None:
        """The session's stream has ended; its engine's blocks stay as they are."""
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
        session.ended.set()

    def attached(self, pool: str) -> list[str]:
        """The engines that have a live session in a pool."""
        return [engine for where, engine in self.sessions if where == pool]

    def refuse_when_draining(self) -> None:
        """Raises Draining once the server is shutting down."""
        if self.draining:
            raise Draining(self._limits.drain_retry_after)

    def begin_drain(self) -> None:
        """Take no new work: end idle streams, and answer those who wait."""
        self.draining = True
        for interrupt in list(self.streams.values()):
            interrupt()
        for pool in self.pools.values():
            pool.stop_waiting()
