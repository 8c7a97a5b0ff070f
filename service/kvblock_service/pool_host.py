"""The only writer of a pool: one lock, one command at a time, and the queue of those who wait.

Rules:
- Every command goes through `apply`: the check and the take are one step under the pool's lock.
- `apply` is called from the event loop's thread only; other threads may read.
- Waiting allocations are tried in the order in which they came, each time blocks come back. A
  waiting allocation holds nothing until the moment it is granted, so a cancelled one takes nothing.
"""

import asyncio
import threading
import time
from collections import deque
from typing import NamedTuple

from kvblock_service.core.audit import Report, audit
from kvblock_service.core.commands import (
    Allocate,
    Command,
    LimitReached,
    Outcome,
    RefusalReason,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool, blocks_of
from kvblock_service.errors import StateLimit


class EngineState(NamedTuple):
    """What one engine has in a pool."""

    name: str
    held_blocks: int
    sequences: int


class PoolState(NamedTuple):
    """A pool at one moment."""

    free_blocks: int
    held_blocks: int
    sequences: int
    allocated_total: int
    freed_total: int
    refused_total: dict[RefusalReason, int]
    revision: int
    waiting: int
    engines: list[EngineState]


class SequenceRow(NamedTuple):
    """One sequence in a listing; rows are ordered by engine name, then id."""

    engine: str
    sequence_id: int
    num_blocks: int


class PoolHost:
    """A pool, its lock, and its wait queue.

    `lock_wait_ns` tells how long the last `apply` waited for the lock.
    """

    def __init__(self, geometry: Geometry, bounds: Bounds, wait_queue_max: int) -> None:
        self.geometry = geometry
        self.lock_wait_ns = 0
        self._pool = Pool(geometry, bounds)
        self._lock = threading.Lock()
        self._wait_queue_max = wait_queue_max
        self._waiting: deque[asyncio.Event] = deque()
        self._closed = False

    def apply(self, command: Command) -> Outcome:
        """Carry out one command, and wake the first who waits when blocks came back.

        Raises:
            StateLimit: the command would cross a limit; nothing was changed.

        """
        self._acquire()
        try:
            freed_before = self._pool.freed_total
            outcome = self._pool.apply(command)
        finally:
            self._lock.release()
        if self._waiting and self._pool.freed_total != freed_before:
            self._waiting[0].set()
        if type(outcome) is LimitReached:
            raise StateLimit(
                outcome.limit, outcome.maximum, pool=self.geometry.name, engine=command.engine
            )
        return outcome

    async def allocate(self, command: Allocate, max_wait: float) -> Outcome:
        """Allocate, waiting up to `max_wait` seconds for blocks that are not free now.

        Raises:
            StateLimit: the command, or its place in the wait queue, would cross a limit.

        """
        at_once = not self._waiting and self._fits(command)
        if not max_wait or at_once or command.num_blocks > self.geometry.total_blocks:
            return self.apply(command)
        if len(self._waiting) >= self._wait_queue_max:
            raise StateLimit("wait_queue_max", self._wait_queue_max, pool=self.geometry.name)
        deadline = time.monotonic() + max_wait
        turn = asyncio.Event()
        self._waiting.append(turn)
        try:
            while await self._woken(turn, deadline) and not self._fits(command):
                turn.clear()
            return self.apply(command)
        finally:
            self._waiting.remove(turn)
            if self._waiting and len(self._pool.free_list):
                self._waiting[0].set()

    def stop_waiting(self) -> None:
        """Answer all who wait, now and from now on, by what is free at this moment."""
        self._closed = True
        for turn in self._waiting:
            turn.set()

    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        with self._lock:
            return len(self._pool.free_list)

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's block table, or None when it has none."""
        with self._lock:
            return self._pool.table(engine, sequence_id)

    def engine(self, name: str) -> EngineState:
        """What the engine of that name has; nothing, when it is not known."""
        with self._lock:
            engine = self._pool.engines.get(name)
            if engine is None:
                return EngineState(name, 0, 0)
            return EngineState(name, engine.held, len(engine.tables))

    def state(self) -> PoolState:
        """The pool at this moment, with the engines that have sequences, by name."""
        with self._lock:
            pool = self._pool
            engines = [
                EngineState(name, engine.held, len(engine.tables))
                for name, engine in sorted(pool.engines.items())
            ]
            return PoolState(
                free_blocks=len(pool.free_list),
                held_blocks=pool.held,
                sequences=sum(engine.sequences for engine in engines),
                allocated_total=pool.allocated_total,
                freed_total=pool.freed_total,
                refused_total=dict(pool.refused_total),
                revision=pool.revision,
                waiting=len(self._waiting),
                engines=engines,
            )

    def sequences(self, only: str, after: tuple[str, int] | None, count: int) -> list[SequenceRow]:
        """The first `count` sequences behind `after`, of one engine or (empty `only`) of all."""
        rows: list[SequenceRow] = []
        with self._lock:
            for name, engine in sorted(self._pool.engines.items()):
                if (only and name != only) or (after and name < after[0]):
                    continue
                floor = after[1] if after and name == after[0] else -1
                ids = sorted(sequence for sequence in engine.tables if sequence > floor)
                rows += [
                    SequenceRow(name, sequence, len(blocks_of(engine.tables[sequence])))
                    for sequence in ids[: count - len(rows)]
                ]
                if len(rows) == count:
                    break
        return rows

    def audit(self) -> Report:
        """Recount the pool; commands wait meanwhile."""
        with self._lock:
            return audit(self._pool)

    def _acquire(self) -> None:
        self.lock_wait_ns = 0
        if not self._lock.acquire(blocking=False):
            started = time.perf_counter_ns()
            self._lock.acquire()
            self.lock_wait_ns = time.perf_counter_ns() - started

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
