"""Everything a server holds: its pools, its sessions, and whether it is draining.

Rules:
- Pools are listed in order of their names. `pools` is replaced as a whole, never changed in place:
  other threads may be reading it.
- Which pool is the default one is settled at the start. While no pool has its name, requests that
  name none find none.
- Pools are made and deleted by commands, so that a journal can keep them and carry them out again:
  nothing but the commands and the order in which they came decides what is there. A command with a
  request_id takes effect once, also over a restart.
- At most one stream is attached under an engine's name in a pool: a resumed or taken-over lease
  ends the stream that was there before.
- A stream whose lease has ended is ended. What has ended its lease is in the journal then: a client
  that is told so early would find the lease alive after a crash of the server. That does not depend
  on the call that ended it, which may have failed or been cancelled meanwhile.
- Once draining has begun it does not end.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from kvblock_service.committer import Committer
from kvblock_service.core.pool import Geometry
from kvblock_service.errors import (
    CallError,
    Draining,
    EngineAttached,
    IdentityReused,
    InvalidField,
    PoolExists,
    PoolNotFound,
    StaleEpoch,
    StateLimit,
)
from kvblock_service.journal.codec import encode
from kvblock_service.journal.records import PoolChange, PoolCreated, PoolDeleted, remember
from kvblock_service.lease_log import LeaseLog
from kvblock_service.pool_host import PoolHost


class CreatePool(NamedTuple):
    """Make a pool. `quarantine_ms`: see PoolHost."""

    geometry: Geometry
    quarantine_ms: int | None
    request_id: str


class DeletePool(NamedTuple):
    """Delete a pool that nobody uses."""

    pool: str
    request_id: str


Lifecycle: TypeAlias = CreatePool | DeletePool
NewPool: TypeAlias = Callable[[Geometry, "int | None", int], PoolHost]
"""Makes an empty pool of a geometry, a quarantine, and the floor that its epochs are above."""


class HostLimits(NamedTuple):
    """Limits that hold for a server as a whole.

    `pools_max` limits the pools that are made while it runs; those of the start count.
    """

    sessions_max: int
    drain_retry_after: float
    pools_max: int = 0


class LiveSession(Protocol):
    """A stream that is attached, in the pool and as the engine that `key` names."""

    key: tuple[str, str]
    epoch: int

    def end_with(self, error: CallError) -> None:
        """End the stream with an error, once the message that is being served is answered."""


class Host:
    """The pools and sessions of one server.

    `server_epoch` grows with every start that begins with empty pools. `streams` holds for each
    open stream, attached or not, what ends it when it is idle. `ask_to_stop` lets whoever runs the
    server begin its drain; it is told why. `leases` is to be told what becomes of leases.
    """

    def __init__(
        self,
        pools: Sequence[PoolHost],
        default_pool: str,
        limits: HostLimits,
        server_epoch: int,
        new_pool: NewPool | None = None,
        committer: Committer | None = None,
        epoch_floor: int = 0,
        changes: Sequence[PoolChange] = (),
    ) -> None:
        self.pools = {pool.geometry.name: pool for pool in pools}
        self.pools = dict(sorted(self.pools.items()))
        only = next(iter(self.pools)) if len(self.pools) == 1 else ""
        self.default_pool = default_pool or only
        self.server_epoch = server_epoch
        self.draining = False
        self.leases = LeaseLog()
        self.sessions: dict[tuple[str, str], LiveSession] = {}
        self.streams: dict[object, Callable[[], None]] = {}
        self.ask_to_stop: Callable[[str], None] = lambda _: self.begin_drain()
        self._limits = limits
        self._new_pool = new_pool
        self._committer = committer
        self._epoch_floor = max(server_epoch, epoch_floor)
        self._changes = {change.request_id: change for change in changes}

    def pool(self, name: str) -> PoolHost:
        """The pool of that name; the default pool for an empty name.

        Raises:
            InvalidField: no name was given and the server has no default pool.
            PoolNotFound: no pool has that name.

        """
        meant = name or self.default_pool
        pool = self.pools.get(meant)
        if pool is None:
            if not meant:
                raise InvalidField("pool", "", f"is empty; name one of: {', '.join(self.pools)}")
            raise PoolNotFound(meant, list(self.pools))
        return pool

    def create_pool(self, command: CreatePool) -> bool:
        """Make a pool; False: a request_id said that this was done before.

        Raises:
            PoolExists: its name is taken.
            StateLimit: there are `pools_max` pools.
            IdentityReused: the request_id came before with other content.

        """
        if self._is_repeated(command, command.geometry.name):
            return False
        name = command.geometry.name
        if name in self.pools:
            raise PoolExists(name)
        if len(self.pools) >= self._limits.pools_max:
            raise StateLimit("pools_max", self._limits.pools_max, pool=name)
        assert self._new_pool is not None, "this host was not told how pools are made"
        floor = self._epoch_floor
        geometry, quarantine_ms, request_id = command
        self._keep(PoolCreated(geometry, floor, False, quarantine_ms, request_id))
        pool = self._new_pool(geometry, quarantine_ms, floor)
        self.pools = dict(sorted({**self.pools, name: pool}.items()))
        return True

    def delete_pool(self, command: DeletePool) -> bool:
        """Delete a pool; False: a request_id said that this was done before.

        Raises:
            PoolNotFound: no pool has that name.
            PoolHeld: somebody has something in it or waits for it.
            IdentityReused: the request_id came before with other content.

        """
        if self._is_repeated(command, command.pool):
            return False
        pool = self.pool(command.pool)
        pool.refuse_when_held()
        self._keep(PoolDeleted(pool.geometry.name, command.request_id))
        # A later pool of the same name must not hand out an epoch that a late client still has.
        self._epoch_floor = max(self._epoch_floor, pool.last_epoch)
        self.pools = {name: one for name, one in self.pools.items() if one is not pool}
        return True

    async def settled(self) -> None:
        """Return when everything that was carried out so far, in any pool, is in the journal.

        Raises:
            JournalUnwritable: it cannot be written now.

        """
        if self._committer is not None:
            await self._committer.settled()

    def has_stream(self, pool: str, engine: str, epoch: int) -> bool:
        """Whether a stream is attached under a lease."""
        session = self.sessions.get((pool, engine))
        return session is not None and session.epoch == epoch

    def refuse_more_sessions(self, key: tuple[str, str]) -> None:
        """Raises StateLimit when as many sessions are live as `sessions_max` permits."""
        if key not in self.sessions and len(self.sessions) >= self._limits.sessions_max:
            raise StateLimit("sessions_max", self._limits.sessions_max)

    def enter(self, session: LiveSession) -> None:
        """Make a session the live one under its name; the one before is ended when that is kept."""
        before = self.sessions.get(session.key)
        self.sessions[session.key] = session
        if before is not None:
            error = (
                EngineAttached.elsewhere(*session.key)
                if before.epoch == session.epoch
                else StaleEpoch(*session.key, before.epoch, session.epoch)
            )
            self._when_settled(partial(before.end_with, error.of_journal()))

    def leave(self, session: LiveSession) -> None:
        """The session's stream has ended; its lease stays as it is."""
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]

    def end_session(self, pool: str, engine: str, epoch: int) -> None:
        """A lease has ended: end its stream, if it has one, when that is kept."""
        self._when_settled(partial(self._end, pool, engine, epoch + 1, 0))

    def end_sessions_before(self, pool: str, engine: str, current: int) -> None:
        """A lease has begun under `current`: end the stream of an earlier one when that is kept."""
        self._when_settled(partial(self._end, pool, engine, current, current))

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

    def _when_settled(self, follow: Callable[[], None]) -> None:
        if self._committer is None:
            follow()
        else:
            self._committer.when_written(follow)

    def _end(self, pool: str, engine: str, before: int, current: int) -> None:
        """End an engine's stream if its epoch is an earlier one than `before`."""
        session = self.sessions.get((pool, engine))
        if session is not None and session.epoch < before:
            stale = StaleEpoch(pool, engine, session.epoch, current)
            session.end_with(stale.of_journal())

    def _keep(self, change: PoolChange) -> None:
        """Journal a change of the pools, and remember it.

        Raises:
            JournalUnwritable: that cannot be done now.

        """
        if self._committer is not None:
            self._committer.refuse_when_failing()
            self._committer.add(encode(change))
        remember(self._changes, change)

    def _is_repeated(self, command: Lifecycle, pool: str) -> bool:
        known = self._changes.get(command.request_id)
        if known is not None and _command_of(known) != command:
            raise IdentityReused("request_id", pool, "")
        return known is not None


def _command_of(change: PoolChange) -> Lifecycle:
    if isinstance(change, PoolCreated):
        return CreatePool(change.geometry, change.quarantine_ms, change.request_id)
    return DeletePool(*change)
