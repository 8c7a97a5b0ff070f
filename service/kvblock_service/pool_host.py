"""The only writer of a pool: one lock, one command at a time, and the queue of those who wait.

Rules:
- Every command goes through `apply`: the check and the take are one step under the pool's lock,
  and the moment is taken inside it.
- What was carried out goes to the committer, in order; `settled` returns when it is in the journal.
  A renewal is not kept, and goes on while nothing can be written; but then it rejects nothing.
- A table is told when what its engine was answered last is in the journal: the one of an engine
  with nothing unwritten at once, also while nothing can be written.
- `apply` is called from the event loop's thread only; other threads may read.
- Waiting allocations are tried in the order in which they came, each time blocks come back. A
  waiting allocation holds nothing until the moment it is granted, so a cancelled one takes nothing.
  One whose engine's lease ends has nothing to wait for, and is told at once.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from kvblock_service.committer import Committer
from kvblock_service.core import leases, listing
from kvblock_service.core.audit import Report, audit
from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Answer,
    Attach,
    Command,
    Detach,
    EngineHeld,
    Expire,
    Fenced,
    Freed,
    IdReused,
    LimitReached,
    Reclaim,
    RefusalReason,
    Rejection,
    Renew,
    Stamp,
    StepOutOfOrder,
)
from kvblock_service.core.engine import Engine
from kvblock_service.core.listing import BlockPage, SequencePage, Wanted
from kvblock_service.core.pool import Geometry, Pool
from kvblock_service.errors import (
    CallError,
    EngineAttached,
    EngineNotFound,
    IdentityReused,
    PoolHeld,
    StaleEpoch,
    StateLimit,
    StepId,
)
from kvblock_service.journal.records import is_kept

_LEASE_CHANGES = (Attach, Detach, Expire, Reclaim)

Encode: TypeAlias = Callable[[str, Stamp, Command], bytes]
"""Makes a journal record of a pool's name, a stamp and a command."""


def monotonic_ms() -> int:
    """The host's monotonic clock in milliseconds."""
    return time.monotonic_ns() // 1_000_000


class Log(NamedTuple):
    """Where commands that were carried out are kept, and in what form."""

    committer: Committer
    encode: Encode


class EngineState(NamedTuple):
    """What one engine has in a pool.

    `expires_in_ms` and `since_heartbeat_ms` are of its lease: 0 without one. `refusals` are its
    refused allocations.
    """

    name: str
    held_blocks: int
    sequences: int
    epoch: int
    expires_in_ms: int
    since_heartbeat_ms: int = 0
    refusals: int = 0


class PoolState(NamedTuple):
    """A pool at one moment."""

    free_blocks: int
    held_blocks: int
    quarantined_blocks: int
    sequences: int
    allocated_total: int
    freed_total: int
    reclaimed_total: int
    expired_total: int
    refused_total: dict[RefusalReason, int]
    revision: int
    waiting: int
    engines: list[EngineState]


class _Waiter(NamedTuple):
    """An allocation that waits: what wakes it, and whose it is."""

    turn: asyncio.Event
    engine: str


class PoolHost:
    """A pool, its lock, its wait queue, and the log that it is restored from.

    `quarantine_ms`: how long the blocks of a vanished engine wait; None: for its TTL.
    `now_ms`: the clock that leases go by. `lock_wait_ns` tells how long the last `apply` waited for
    the lock.
    """

    def __init__(
        self,
        pool: Pool,
        wait_queue_max: int,
        quarantine_ms: int | None = None,
        log: Log | None = None,
        now_ms: Callable[[], int] = monotonic_ms,
    ) -> None:
        self.geometry: Geometry = pool.geometry
        self.quarantine_ms = quarantine_ms
        self.lock_wait_ns = 0
        self._pool = pool
        self._lock = threading.Lock()
        self._now_ms = now_ms
        self._log = log
        self._wait_queue_max = wait_queue_max
        self._waiting: deque[_Waiter] = deque()
        # Whose records may not be in the journal yet, by the records' numbers.
        self._unwritten: deque[tuple[int, str]] = deque()
        self._closed = False

    def apply(self, command: Command, trace_id: str = "") -> Answer:
        """Carry out one command, and wake who waits for what it has changed.

        Raises:
            CallError: the command was rejected, or nothing can be journaled; nothing was changed.

        """
        log = self._log
        if log is not None and type(command) is not Renew:
            log.committer.refuse_when_failing()
        pool = self._pool
        self._acquire()
        try:
            before = pool.revision
            stamp = Stamp(self._now_ms(), time.time_ns() // 1_000_000, trace_id)
            outcome = pool.apply(command, stamp)
        finally:
            self._lock.release()
        if isinstance(outcome, REJECTIONS):
            if log is not None:
                # It may follow from something that is not in the journal yet, and may never be.
                log.committer.refuse_when_failing()
            raise self._error(command, outcome)
        if log is not None and is_kept(command, outcome, pool.repeated):
            self._keep(log, stamp, command)
        if self._waiting and pool.revision != before:
            self._wake(command)
        return outcome

    async def settled(self) -> None:
        """Return when everything that was carried out so far is in the journal.

        Raises:
            JournalUnwritable: it cannot be written now.

        """
        if self._log is not None:
            await self._log.committer.settled()

    async def settled_of(self, engine: str) -> None:
        """Return when everything of an engine that was carried out so far is in the journal.

        Raises:
            JournalUnwritable: there is something, and it cannot be written now.

        """
        if self._log is not None and self._unwritten:
            self._forget_written(self._log.committer)
            if any(name == engine for _, name in self._unwritten):
                await self._log.committer.settled()

    @property
    def repeated(self) -> bool:
        """Whether the last command that was applied had been carried out before."""
        return self._pool.repeated

    @property
    def journaled(self) -> bool:
        """Whether there is a journal to wait for."""
        return self._log is not None

    @property
    def writable(self) -> bool:
        """Whether commands can be journaled, or need not be."""
        return self._log is None or self._log.committer.failure is None

    def quarantine_of(self, engine: str, default_ms: int) -> int:
        """How long an engine's blocks are to wait if it is ended now, in milliseconds.

        That is the pool's setting, or else the TTL of its lease, or `default_ms` without a lease.
        """
        if self.quarantine_ms is not None:
            return self.quarantine_ms
        with self._lock:
            found = self._pool.engines.get(engine)
            return found.ttl_ms if found and found.epoch else default_ms

    def due(self, now_ms: int) -> list[Command]:
        """What time has brought about, as commands to apply."""
        return leases.due(self._pool, now_ms, self.quarantine_ms)

    def begin_anew(self, now_ms: int) -> None:
        """Give every lease its full TTL from now, and every quarantine its full time."""
        with self._lock:
            leases.begin_anew(self._pool, now_ms)

    def full_ttl(self, now_ms: int) -> None:
        """Give every lease its full TTL from now."""
        with self._lock:
            leases.full_ttl(self._pool, now_ms)

    async def allocate(
        self,
        command: Allocate,
        max_wait: float,
        trace_id: str = "",
        permit: Callable[[], None] = lambda: None,
        waited: Callable[[float], None] | None = None,
    ) -> Answer:
        """Allocate, waiting up to `max_wait` seconds for blocks that are not free now.

        `permit` is asked when it has waited: it may raise what forbids it by then. `waited` is told
        for how many seconds it did, also when it was cancelled.

        Raises:
            CallError: as `apply` or `permit`, or the wait queue is full.

        """
        exceeds = command.num_blocks > self.geometry.total_blocks
        at_once = self._answered(command) or (not self._waiting and self._fits(command))
        if not max_wait or at_once or exceeds or not self.writable:
            return self.apply(command, trace_id)
        if len(self._waiting) >= self._wait_queue_max:
            raise StateLimit("wait_queue_max", self._wait_queue_max, pool=self.geometry.name)
        began = time.monotonic()
        deadline = began + max_wait
        waiter = _Waiter(asyncio.Event(), command.engine)
        self._waiting.append(waiter)
        try:
            while await self._woken(waiter.turn, deadline):
                is_first = self._waiting[0] is waiter
                if (is_first and self._fits(command)) or self._answered(command):
                    break
                waiter.turn.clear()
            permit()
            return self.apply(command, trace_id)
        finally:
            self._waiting.remove(waiter)
            if waited is not None:
                waited(time.monotonic() - began)
            if self._waiting and len(self._pool.free_list):
                self._waiting[0].turn.set()

    def stop_waiting(self) -> None:
        """Answer all who wait, now and from now on, by what is free at this moment."""
        self._closed = True
        for waiter in self._waiting:
            waiter.turn.set()

    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        with self._lock:
            return len(self._pool.free_list)

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's block table, or None when it has none."""
        with self._lock:
            return self._pool.table(engine, sequence_id)

    def epoch(self, engine: str) -> int:
        """The epoch of an engine's lease, 0 without one."""
        with self._lock:
            found = self._pool.engines.get(engine)
            return found.epoch if found else 0

    def state(self) -> PoolState:
        """The pool at this moment, with the engines that have sequences or a lease, by name."""
        with self._lock:
            pool = self._pool
            engines = self._engine_states()
            state = PoolState(
                free_blocks=len(pool.free_list),
                held_blocks=pool.held,
                quarantined_blocks=pool.quarantined,
                sequences=sum(engine.sequences for engine in engines),
                allocated_total=pool.allocated_total,
                freed_total=pool.freed_total,
                reclaimed_total=pool.reclaimed_total,
                expired_total=pool.expired_total,
                refused_total=dict(pool.refused_total),
                revision=pool.revision,
                waiting=len(self._waiting),
                engines=engines,
            )
        # Many names take a while, for which nobody has to wait.
        engines.sort()
        return state

    def sequences(
        self, only: str, after: tuple[str, int] | None, count: int, numbers_max: int = 0
    ) -> SequencePage:
        """A page of sequences: see `listing.sequences`."""
        with self._lock:
            return listing.sequences(self._pool, only, after, count, numbers_max)

    def blocks(self, wanted: Wanted, after: int, count: int) -> BlockPage:
        """A page of blocks: see `listing.blocks`."""
        with self._lock:
            return listing.blocks(self._pool, wanted, after, count, self._now_ms())

    def reclaim(self, command: Reclaim, trace_id: str = "", *, force: bool = False) -> Freed:
        """End an engine from outside; `force`: also one whose lease has not run out.

        Raises:
            EngineNotFound: the pool has no such engine.
            EngineAttached: its lease has not run out, and this is no `force`.
            CallError: as `apply`.

        """
        if not self._pool.knows(command):
            engine = self._pool.engines.get(command.engine)
            if engine is None:
                raise EngineNotFound(self.geometry.name, command.engine)
            if not force and command.epoch in (0, engine.epoch):
                self._refuse_when_alive(engine)
        freed = self.apply(command, trace_id)
        assert isinstance(freed, Freed)
        return freed

    def _refuse_when_alive(self, engine: Engine) -> None:
        now_ms = self._now_ms()
        left_ms = engine.deadline_ms - now_ms
        if engine.epoch and left_ms > 0:
            raise EngineAttached.alive(
                self.geometry.name,
                engine.name,
                leases.since_heartbeat_ms(engine, now_ms) / 1000,
                left_ms / 1000,
            )

    def refuse_when_held(self) -> None:
        """Raises PoolHeld while somebody has something in the pool or waits for it."""
        state = self.state()
        attached = sum(1 for engine in state.engines if engine.epoch)
        held, quarantined = state.held_blocks, state.quarantined_blocks
        if held or quarantined or attached or state.waiting:
            raise PoolHeld(self.geometry.name, held, quarantined, attached, state.waiting)

    @property
    def last_epoch(self) -> int:
        """The greatest epoch that was handed out, or the floor that epochs are above."""
        return self._pool.last_epoch

    def audit(self) -> Report:
        """Recount the pool; commands wait meanwhile."""
        with self._lock:
            return audit(self._pool)

    def _engine_states(self) -> list[EngineState]:
        """The engines, in no order; the lock is held."""
        now_ms = self._now_ms()
        return [
            EngineState(
                name,
                engine.held,
                len(engine.tables),
                engine.epoch,
                max(0, engine.deadline_ms - now_ms) if engine.epoch else 0,
                leases.since_heartbeat_ms(engine, now_ms) if engine.epoch else 0,
                engine.refusals,
            )
            for name, engine in self._pool.engines.items()
        ]

    def _keep(self, log: Log, stamp: Stamp, command: Command) -> None:
        """Have a command that was carried out written."""
        committer = log.committer
        try:
            committer.add(log.encode(self.geometry.name, stamp, command))
        except Exception as bug:
            committer.break_down(bug)
            raise
        finally:
            if committer.written != committer.added:
                self._forget_written(committer)
                self._unwritten.append((committer.added, command.engine))

    def _forget_written(self, committer: Committer) -> None:
        unwritten = self._unwritten
        while unwritten and unwritten[0][0] <= committer.written:
            unwritten.popleft()

    def _error(self, command: Command, rejection: Rejection) -> CallError:
        where = {"pool": self.geometry.name, "engine": command.engine}
        if isinstance(rejection, LimitReached):
            return StateLimit(rejection.limit, rejection.maximum, **where)
        if isinstance(rejection, Fenced):
            return StaleEpoch(**where, epoch=command.epoch, current=rejection.current)
        if isinstance(rejection, EngineHeld):
            return EngineAttached(**where, expires_in=rejection.expires_in_ms / 1000)
        if isinstance(rejection, IdReused):
            return IdentityReused(rejection.field, **where)
        assert isinstance(rejection, StepOutOfOrder)
        return StepId(getattr(command, "step_id", 0), rejection.expected)

    def _acquire(self) -> None:
        self.lock_wait_ns = 0
        if not self._lock.acquire(blocking=False):
            started = time.perf_counter_ns()
            self._lock.acquire()
            self.lock_wait_ns = time.perf_counter_ns() - started

    def _wake(self, command: Command) -> None:
        if len(self._pool.free_list):
            self._waiting[0].turn.set()
        if isinstance(command, _LEASE_CHANGES):
            for waiter in self._waiting:
                if waiter.engine == command.engine:
                    waiter.turn.set()

    def _answered(self, command: Allocate) -> bool:
        """Whether the answer depends on no block: it was given before, or the epoch is stale."""
        return self._pool.knows(command) or self.epoch(command.engine) != command.epoch

    def _fits(self, command: Allocate) -> bool:
        return command.num_blocks <= len(self._pool.free_list)

    async def _woken(self, turn: asyncio.Event, deadline: float) -> bool:
        """Wait for the turn; False when it is time to answer whatever the pool says."""
        left = deadline - time.monotonic()
        if self._closed or left <= 0:
            return False
        # Not asyncio.wait_for: a cancellation that meets the wake-up would be lost in it.
        alarm = asyncio.get_running_loop().call_later(left, turn.set)
        try:
            await turn.wait()
        finally:
            alarm.cancel()
        return not self._closed and time.monotonic() < deadline
