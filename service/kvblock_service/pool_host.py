"""The only writer of a pool: one lock, one command at a time, and the log of what was done.

Rules:
- Every command goes through `apply`: the check and the take are one step under the pool's lock,
  and the moment is taken inside it.
- What was carried out goes to the committer, in order; `settled` returns when it is in the journal.
  A renewal is not written, and goes on while nothing can be written; but then it rejects nothing.
- A table is answered once the last answer to its engine is in the journal: the one of an engine
  with nothing unwritten at once, also while nothing can be written.
- `apply` is called from the event loop's thread only; other threads may read.
- An allocation waits in the pool's `wait_queue`; one whose engine's lease ends fails at once.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from kvblock_service import errors
from kvblock_service.call_error import CallError
from kvblock_service.committer import Committer, NullCommitter
from kvblock_service.core import leases, listing
from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Answer,
    Attach,
    BlockNotHeld,
    Command,
    Detach,
    EngineHeld,
    Expire,
    Fenced,
    Freed,
    Geometry,
    IdReused,
    LimitReached,
    Reclaim,
    Refused,
    Rejection,
    Renew,
    Stamp,
    StepOutOfOrder,
    Stepped,
)
from kvblock_service.core.demand import Demands
from kvblock_service.core.pool import Pool
from kvblock_service.journal.codec import encode_command
from kvblock_service.journal.records import is_persisted
from kvblock_service.recalls import Recalls
from kvblock_service.wait_queue import WaitQueue

_LEASE_CHANGES = (Attach, Detach, Expire, Reclaim)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def monotonic_ms() -> int:
    """The host's monotonic clock in milliseconds."""
    return time.monotonic_ns() // 1_000_000


class PoolHost:
    """A pool, its lock, its wait queue, and the committer of the journal it is restored from.

    `quarantine_ms`: how long the blocks of a vanished engine wait; None: for its TTL.
    `now_ms`: the clock that leases go by. `encode` makes a record of a pool's name, a stamp and a
    command. `lock_wait_ns` tells how long the last `apply` waited for the lock. `recall` says what
    engines owe.
    """

    def __init__(
        self,
        pool: Pool,
        wait_queue_max: int,
        quarantine_ms: int | None = None,
        committer: Committer | None = None,
        now_ms: Callable[[], int] = monotonic_ms,
        encode: Callable[[str, Stamp, Command], bytes] = encode_command,
    ) -> None:
        self.geometry: Geometry = pool.geometry
        self.now_ms = now_ms
        self.quarantine_ms = quarantine_ms
        self.lock_wait_ns = 0
        self._pool = pool
        self._lock = threading.Lock()
        self._committer = committer or NullCommitter()
        self._encode = encode
        self._queue = WaitQueue(
            pool.geometry.name, wait_queue_max, self.available, self._is_answered
        )
        self.recall = Recalls(Demands(pool), self._queue.waiters, now_ms)
        # Whose records may not be in the journal yet, by the records' numbers.
        self._unwritten: deque[tuple[int, str]] = deque()

    def apply(self, command: Command, trace_id: str = "") -> tuple[Answer, bool]:
        """Carry out one command, and wake the allocations that wait for what it has changed.

        Answers as `Pool.apply` does: with True when it was carried out before.

        Raises:
            CallError: the command was rejected, or nothing can be journaled; nothing was changed.

        """
        committer = self._committer
        if committer.failure is not None and type(command) is not Renew:
            committer.refuse_when_failing()
        pool = self._pool
        self.lock_wait_ns = 0
        if not self._lock.acquire(blocking=False):
            self._wait_for_lock()
        try:
            before = pool.revision
            stamp = Stamp(self.now_ms(), time.time_ns() // 1_000_000, trace_id)
            outcome, replayed = pool.apply(command, stamp)
        finally:
            self._lock.release()
        if isinstance(outcome, REJECTIONS):
            # It may follow from something that is not in the journal yet, and may never be.
            committer.refuse_when_failing()
            raise self._error(command, outcome)
        if committer.journaled and is_persisted(command, outcome, replayed):
            self._write(stamp, command)
        if self._queue.waiters and pool.revision != before:
            self._queue.wake(command.engine if isinstance(command, _LEASE_CHANGES) else "")
        recall = self.recall
        refused = outcome.refused if type(outcome) is Stepped else type(outcome) is Refused
        if refused or recall.demands.engines or self._queue.waiters:
            recall.demands.applied(command, outcome, stamp.now_ms, replayed=replayed)
            recall.changed()
        return outcome, replayed

    async def allocate(
        self,
        command: Allocate,
        max_wait: float,
        trace_id: str = "",
        permit: Callable[[], None] = lambda: None,
        waited: Callable[[float], None] | None = None,
    ) -> Answer:
        """Allocate, waiting up to `max_wait` seconds for blocks that are not free now.

        `permit` is called when it has waited: it may raise what forbids it by then. `waited` takes
        for how many seconds it did, also when it was cancelled.

        Raises:
            CallError: as `apply` or `permit`, or the wait queue is full.

        """
        exceeds = command.num_blocks > self.geometry.issuable_blocks
        if not max_wait or exceeds or not self.writable or self._queue.admits(command):
            return self.apply(command, trace_id)[0]

        def apply() -> Answer:
            permit()
            return self.apply(command, trace_id)[0]

        # Looked at in the next turn of the loop: it is in the queue by then.
        self.recall.changed()
        try:
            return await self._queue.wait(command, max_wait, apply, waited)
        finally:
            self.recall.changed()

    def stop_waiting(self) -> None:
        """Answer waiting allocations, now and from now on, by what is free at this moment."""
        self._queue.close()

    def available(self, engine: str) -> int:
        """How many blocks an engine can be granted now."""
        with self._lock:
            return self._pool.blocks.available(engine)

    async def settled(self) -> None:
        """Return when everything that was carried out so far is in the journal.

        Raises:
            JournalUnwritable: it cannot be written now.

        """
        await self._committer.settled()

    async def settled_of(self, engine: str) -> None:
        """Return when everything of an engine that was carried out so far is in the journal.

        Raises:
            JournalUnwritable: there is something, and it cannot be written now.

        """
        self._forget_written()
        if any(name == engine for _, name in self._unwritten):
            await self._committer.settled()

    @property
    def is_settled(self) -> bool:
        """Whether everything that was carried out so far is in the journal, if there is one."""
        return self._committer.is_settled

    @property
    def writable(self) -> bool:
        """Whether commands can be journaled, or need not be."""
        return self._committer.failure is None

    def quarantine_of(self, engine: str, default_ms: int) -> int:
        """How long an engine's blocks are to wait if it is ended now, in milliseconds.

        That is the pool's setting, or else the TTL of its lease, or `default_ms` without a lease.
        """
        if self.quarantine_ms is not None:
            return self.quarantine_ms
        with self._lock:
            found = self._pool.engines.get(engine)
            return found.ttl_ms if found and found.epoch else default_ms

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
                raise errors.EngineNotFound(self.geometry.name, command.engine)
            now_ms = self.now_ms()
            left_ms = engine.deadline_ms - now_ms
            is_meant = command.epoch in (0, engine.epoch)
            if engine.epoch and left_ms > 0 and is_meant and not force:
                silent_ms = leases.since_heartbeat_ms(engine, now_ms)
                where = (self.geometry.name, engine.name)
                raise errors.EngineAttached.alive(*where, silent_ms / 1000, left_ms / 1000)
        freed, _ = self.apply(command, trace_id)
        assert isinstance(freed, Freed)
        return freed

    def refuse_when_held(self) -> None:
        """Raises PoolHeld while an engine has something in the pool or waits for it."""
        state = self.state()
        attached = sum(1 for engine in state.engines if engine.epoch)
        found = (state.held_blocks, state.quarantined_blocks, attached, state.waiting)
        if any(found):
            raise errors.PoolHeld(self.geometry.name, *found)

    def locked(
        self, do: Callable[Concatenate[Pool, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """What `do` answers for the pool and these arguments; commands wait meanwhile."""
        with self._lock:
            return do(self._pool, *args, **kwargs)

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's block table, or None when it has none."""
        with self._lock:
            return self._pool.table(engine, sequence_id)

    def epoch(self, engine: str) -> int:
        """The epoch of an engine's lease, 0 without one."""
        with self._lock:
            found = self._pool.engines.get(engine)
            return found.epoch if found else 0

    def expires_in_ms(self, engine: str, epoch: int) -> int:
        """How long a lease still lasts unless it is renewed, in milliseconds; 0: it has ended."""
        with self._lock:
            found = self._pool.engines.get(engine)
            if found is None or found.epoch != epoch:
                return 0
            return max(0, found.deadline_ms - self.now_ms())

    def state(self) -> listing.PoolState:
        """The pool at this moment, with the engines that have blocks or a lease, by name."""
        with self._lock:
            levels = self.recall.levels()
            recall = listing.Recall(levels, self.recall.owed_by(levels))
            state = listing.state(self._pool, len(self._queue.waiters), self.now_ms(), recall)
        # Many names take a while, for which nobody has to wait.
        state.engines.sort()
        return state

    def _is_answered(self, command: Allocate) -> bool:
        """Whether the answer depends on no block: it was given before, or the epoch is stale."""
        return self._pool.knows(command) or self.epoch(command.engine) != command.epoch

    def _wait_for_lock(self) -> None:
        started = time.perf_counter_ns()
        self._lock.acquire()
        self.lock_wait_ns = time.perf_counter_ns() - started

    def _write(self, stamp: Stamp, command: Command) -> None:
        """Have a command that was carried out written."""
        committer = self._committer
        try:
            committer.add(self._encode(self.geometry.name, stamp, command))
        except Exception as bug:
            committer.break_down(bug)
            raise
        finally:
            if committer.written != committer.added:
                self._forget_written()
                self._unwritten.append((committer.added, command.engine))

    def _forget_written(self) -> None:
        while self._unwritten and self._unwritten[0][0] <= self._committer.written:
            self._unwritten.popleft()

    def _error(self, command: Command, rejection: Rejection) -> CallError:
        where = {"pool": self.geometry.name, "engine": command.engine}
        if isinstance(rejection, LimitReached):
            return errors.StateLimit(rejection.limit, rejection.maximum, **where)
        if isinstance(rejection, Fenced):
            return errors.StaleEpoch(**where, epoch=command.epoch, current=rejection.current)
        if isinstance(rejection, EngineHeld):
            return errors.EngineAttached(**where, expires_in=rejection.expires_in_ms / 1000)
        if isinstance(rejection, IdReused):
            return errors.IdentityReused(rejection.field, **where)
        if isinstance(rejection, BlockNotHeld):
            return errors.BlockNotHeld(**where, block_number=rejection.block, place=rejection.place)
        assert isinstance(rejection, StepOutOfOrder)
        return errors.StepId(getattr(command, "step_id", 0), rejection.expected)
