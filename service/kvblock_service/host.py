"""Everything a server holds: its pools, its sessions, and whether it is draining.

Rules:
- Pools are listed in order of their names. `pools` is replaced as a whole, never changed in place:
  other threads may be reading it.
- Which pool is the default one is settled at the start. While no pool has its name, requests that
  name none find none.
- The memory of a pool is there before the pool is, and goes after it. It is made and removed in
  another thread, since that takes long, and for one pool at a time.
- Pools are made and deleted by commands of the registry, which are journaled like those of a pool.
- At most one stream is attached under an engine's name in a pool: a resumed or taken-over lease
  ends the stream that was there before.
- A stream whose lease has ended is ended. What has ended its lease is in the journal then: a client
  whose stream ends earlier would find the lease alive after a crash of the server. That does not
  depend on the call that ended it, which may have failed or been cancelled meanwhile.
- Once draining has begun it does not end.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from kvblock_service import errors
from kvblock_service.call_error import CallError
from kvblock_service.committer import Committer, NullCommitter
from kvblock_service.core import commands
from kvblock_service.core.registry import PoolEntry, Registry
from kvblock_service.journal.codec import encode
from kvblock_service.lease_log import LeaseLog
from kvblock_service.memory import MemoryFileError, ServerFiles
from kvblock_service.pool_host import PoolHost


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
    open stream, attached or not, what ends it when it is idle. `ask_to_stop` takes a reason and has
    the server begin its drain. `leases` logs what becomes of leases. `hosted` makes the PoolHost of
    a pool.
    """

    def __init__(
        self,
        registry: Registry,
        hosted: Callable[[PoolEntry], PoolHost],
        default_pool: str,
        limits: HostLimits,
        server_epoch: int,
        committer: Committer | None = None,
        memory: ServerFiles | None = None,
    ) -> None:
        made = {name: hosted(entry) for name, entry in registry.pools.items()}
        self.pools = dict(sorted(made.items()))
        only = next(iter(self.pools)) if len(self.pools) == 1 else ""
        self.default_pool = default_pool or only
        self.server_epoch = server_epoch
        self.draining = False
        self.leases = LeaseLog()
        self.sessions: dict[tuple[str, str], LiveSession] = {}
        self.streams: dict[object, Callable[[], None]] = {}
        self.ask_to_stop: Callable[[str], None] = lambda _: self.begin_drain()
        self._registry = registry
        self._hosted = hosted
        self._limits = limits
        self._committer = committer or NullCommitter()
        self._memory = memory
        self._changing_memory = asyncio.Lock()
        registry.pools_max = limits.pools_max

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
                names = ", ".join(self.pools)
                raise errors.InvalidField("pool", "", f"is empty; name one of: {names}")
            raise errors.PoolNotFound(meant, list(self.pools))
        return pool

    def create_pool(
        self, geometry: commands.Geometry, quarantine_ms: int | None, request_id: str
    ) -> bool:
        """Make a pool; False: a request_id said that this was done before. See PoolHost.

        Raises:
            PoolExists: its name is taken.
            StateLimit: there are `pools_max` pools.
            IdentityReused: the request_id came before with other content.
            JournalUnwritable: the journal cannot be written now.

        """
        name, floor = geometry.name, self._registry.last_epoch
        command = commands.CreatePool(geometry, floor, False, quarantine_ms, request_id)
        if not self._apply(command, name):
            return False
        pool = self._hosted(self._registry.pools[name])
        self.pools = dict(sorted({**self.pools, name: pool}.items()))
        return True

    def delete_pool(self, name: str, request_id: str) -> bool:
        """Delete a pool; False: a request_id said that this was done before.

        Raises:
            PoolNotFound: no pool has that name.
            PoolHeld: an engine has something in it or waits for it.
            IdentityReused: the request_id came before with other content.
            JournalUnwritable: the journal cannot be written now.

        """
        command = commands.DeletePool(name, request_id)
        pool = self.pools.get(name)
        if pool is not None and not self._registry.knows(command):
            pool.refuse_when_held()
        if not self._apply(command, name):
            return False
        self.pools = {other: one for other, one in self.pools.items() if other != name}
        return True

    async def create_pool_and_memory(
        self, geometry: commands.Geometry, quarantine_ms: int | None, request_id: str
    ) -> bool:
        """`create_pool`, with the memory file that the pool is to have.

        Raises MemoryUnusable besides: the memory cannot be had.
        """
        if geometry.memory != commands.SHM:
            return self.create_pool(geometry, quarantine_ms, request_id)
        # A call that is cancelled goes on: what its thread does cannot be stopped halfway.
        work = self._create_with_memory(geometry, quarantine_ms, request_id)
        return await asyncio.shield(asyncio.ensure_future(work))

    async def delete_pool_and_memory(self, name: str, request_id: str) -> bool:
        """`delete_pool`, with the pool's memory file."""
        work = self._delete_with_memory(name, request_id)
        return await asyncio.shield(asyncio.ensure_future(work))

    def memory_uri(self, geometry: commands.Geometry) -> str:
        """Where the memory of a pool is, as engines get it; empty: it has none."""
        if geometry.memory == commands.NO_MEMORY:
            return ""
        if geometry.memory != commands.SHM:
            return geometry.memory
        assert self._memory is not None
        return self._memory.uri(geometry.name)

    @property
    def is_settled(self) -> bool:
        """Whether `settled` would return at once."""
        return self._committer.is_settled

    async def settled(self) -> None:
        """Return when everything that was carried out so far, in any pool, is in the journal.

        Raises:
            JournalUnwritable: it cannot be written now.

        """
        await self._committer.settled()

    def has_stream(self, pool: str, engine: str, epoch: int) -> bool:
        """Whether a stream is attached under a lease."""
        session = self.sessions.get((pool, engine))
        return session is not None and session.epoch == epoch

    def refuse_more_sessions(self, key: tuple[str, str]) -> None:
        """Raises StateLimit when as many sessions are live as `sessions_max` permits."""
        if key not in self.sessions and len(self.sessions) >= self._limits.sessions_max:
            raise errors.StateLimit("sessions_max", self._limits.sessions_max)

    def enter(self, session: LiveSession) -> None:
        """Make a session the live one under its name; the one before ends once that is written."""
        before = self.sessions.get(session.key)
        self.sessions[session.key] = session
        if before is not None:
            error = (
                errors.SessionReplaced(*session.key)
                if before.epoch == session.epoch
                else errors.StaleEpoch(*session.key, before.epoch, session.epoch)
            )
            self._committer.when_written(partial(before.end_with, error.of_journal()))

    def leave(self, session: LiveSession) -> None:
        """The session's stream has ended; its lease stays as it is."""
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]

    def end_session(self, pool: str, engine: str, epoch: int) -> None:
        """A lease has ended: end its stream, if it has one, once that is written."""
        self._committer.when_written(partial(self._end, pool, engine, epoch + 1, 0))

    def end_sessions_before(self, pool: str, engine: str, current: int) -> None:
        """A lease has begun under `current`: end an earlier one's stream once that is written."""
        self._committer.when_written(partial(self._end, pool, engine, current, current))

    def refuse_when_draining(self) -> None:
        """Raises Draining once the server is shutting down."""
        if self.draining:
            raise errors.Draining(self._limits.drain_retry_after)

    def begin_drain(self) -> None:
        """Take no new work: end idle streams, and answer waiting allocations."""
        self.draining = True
        for interrupt in list(self.streams.values()):
            interrupt()
        for pool in self.pools.values():
            pool.stop_waiting()

    async def _create_with_memory(
        self, geometry: commands.Geometry, quarantine_ms: int | None, request_id: str
    ) -> bool:
        name, memory = geometry.name, self._memory
        assert memory is not None
        command = commands.CreatePool(geometry, 0, False, quarantine_ms, request_id)
        async with self._changing_memory:
            is_refused = name in self.pools or self._registry.knows(command)
            if not is_refused:
                try:
                    await asyncio.to_thread(memory.take, name, geometry.memory_bytes)
                except MemoryFileError as error:
                    raise errors.MemoryUnusable(name, str(error)) from error
            try:
                return self.create_pool(geometry, quarantine_ms, request_id)
            except errors.CallError:
                if not is_refused:
                    await asyncio.to_thread(memory.drop, name)
                raise

    async def _delete_with_memory(self, name: str, request_id: str) -> bool:
        async with self._changing_memory:
            is_deleted = self.delete_pool(name, request_id)
            if is_deleted and self._memory is not None:
                await asyncio.to_thread(self._memory.drop, name)
            return is_deleted

    def _end(self, pool: str, engine: str, before: int, current: int) -> None:
        """End an engine's stream if its epoch is an earlier one than `before`."""
        session = self.sessions.get((pool, engine))
        if session is not None and session.epoch < before:
            stale = errors.StaleEpoch(pool, engine, session.epoch, current)
            session.end_with(stale.of_journal())

    def _apply(self, change: commands.PoolChange, name: str) -> bool:
        """Carry out and journal a change of the pools; False: that was done before."""
        self._committer.refuse_when_failing()
        outcome, replayed = self._registry.apply(change)
        if not isinstance(outcome, commands.PoolChanged):
            raise self._error(outcome, name)
        if not replayed:
            self._committer.add(encode(change))
        return not replayed

    def _error(self, rejection: commands.PoolRejection, name: str) -> CallError:
        if isinstance(rejection, commands.PoolPresent):
            return errors.PoolExists(name)
        if isinstance(rejection, commands.PoolAbsent):
            return errors.PoolNotFound(name, list(self.pools))
        if isinstance(rejection, commands.LimitReached):
            return errors.StateLimit(rejection.limit, rejection.maximum, pool=name)
        assert isinstance(rejection, commands.IdReused)
        return errors.IdentityReused(rejection.field, name, "")
