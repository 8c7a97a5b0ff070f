"""Everything a server holds: its pools, its sessions, and whether it is draining.

Rules:
- Pools are listed in order of their names.
- At most one stream is attached under an engine's name in a pool: a resumed or taken-over lease
  ends the stream that was there before.
- A stream whose lease has ended is ended.
- Once draining has begun it does not end.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kvblock_service.errors import (
    CallError,
    Draining,
    InvalidField,
    PoolNotFound,
    SessionReplaced,
    StaleEpoch,
    StateLimit,
)
from kvblock_service.pool_host import PoolHost


class HostLimits(NamedTuple):
    """Limits that hold for a server as a whole."""

    sessions_max: int
    drain_retry_after: float


class LiveSession(Protocol):
    """A stream that is attached, in the pool and as the engine that `key` names."""

    key: tuple[str, str]
    epoch: int

    def end_with(self, error: CallError) -> None:
        """End the stream with an error, once the message that is being served is answered."""


class Host:
    """The pools and sessions of one server.

    `server_epoch` grows with every start that begins with empty pools. `streams` holds for each
    open stream, attached or not, what ends it when it is idle.
    """

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

    def refuse_more_sessions(self, key: tuple[str, str]) -> None:
        """Raises StateLimit when as many sessions are live as `sessions_max` permits."""
        if key not in self.sessions and len(self.sessions) >= self._limits.sessions_max:
            raise StateLimit("sessions_max", self._limits.sessions_max)

    def enter(self, session: LiveSession) -> None:
        """Make a session the live one under its name; the one before is ended."""
        before = self.sessions.get(session.key)
        self.sessions[session.key] = session
        if before is not None:
            if before.epoch == session.epoch:
                before.end_with(SessionReplaced(*session.key))
            else:
                before.end_with(StaleEpoch(*session.key, before.epoch, session.epoch))

    def leave(self, session: LiveSession) -> None:
        """The session's stream has ended; its lease stays as it is."""
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]

    def end_session(self, pool: str, engine: str, epoch: int) -> None:
        """A lease has ended: end its stream, if it has one."""
        session = self.sessions.get((pool, engine))
        if session is not None and session.epoch == epoch:
            session.end_with(StaleEpoch(pool, engine, epoch, 0))

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
