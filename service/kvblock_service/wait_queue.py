"""Allocations that wait for blocks of one pool.

Rules:
- They are tried in the order in which they came, each time blocks come back.
- A waiting allocation holds nothing until the moment it is granted, so a cancelled one takes
  nothing. It leaves the queue after that moment: nobody who comes meanwhile passes it.
- What needs no block (it was answered before, or its lease has ended) does not wait for its turn.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from kvblock_service.core.commands import Allocate
from kvblock_service.errors import StateLimit

_Result = TypeVar("_Result")


class Waiter(NamedTuple):
    """An allocation that waits, and what wakes it."""

    command: Allocate
    turn: asyncio.Event


class WaitQueue:
    """The queue of the pool of that name; `length_max` allocations may wait.

    `available` answers how many blocks an engine can take now, `is_answered` whether the answer to
    an allocation depends on no block. `waiters` are those that wait, in order; only the queue
    changes it.
    """

    def __init__(
        self,
        pool: str,
        length_max: int,
        available: Callable[[str], int],
        is_answered: Callable[[Allocate], bool],
    ) -> None:
        self._pool = pool
        self._length_max = length_max
        self._available = available
        self._is_answered = is_answered
        self.waiters: deque[Waiter] = deque()
        self._closed = False

    def admits(self, command: Allocate) -> bool:
        """Whether an allocation that comes now need not wait."""
        return self._is_answered(command) or (not self.waiters and self._fits(command))

    async def wait(
        self,
        command: Allocate,
        seconds: float,
        then: Callable[[], _Result],
        waited: Callable[[float], None] | None,
    ) -> _Result:
        """Answer what `then` does once it is the turn of an allocation, or its time has passed.

        `waited` takes for how many seconds it has waited, also when it is cancelled.

        Raises:
            StateLimit: the queue is full.

        """
        if len(self.waiters) >= self._length_max:
            raise StateLimit("wait_queue_max", self._length_max, pool=self._pool)
        began = time.monotonic()
        waiter = Waiter(command, asyncio.Event())
        self.waiters.append(waiter)
        try:
            while await self._woken(waiter.turn, began + seconds):
                if self._is_turn_of(waiter):
                    break
                waiter.turn.clear()
            return then()
        finally:
            self.waiters.remove(waiter)
            if waited is not None:
                waited(time.monotonic() - began)
            self.wake()

    def wake(self, engine: str = "") -> None:
        """Let the first one go on if it is its turn, and all of an engine whose lease changed."""
        if self.waiters and self._is_turn_of(self.waiters[0]):
            self.waiters[0].turn.set()
        if engine:
            for waiter in self.waiters:
                if waiter.command.engine == engine:
                    waiter.turn.set()

    def close(self) -> None:
        """Let nobody wait any more: what waits is answered by what is free at this moment."""
        self._closed = True
        for waiter in self.waiters:
            waiter.turn.set()

    def _is_turn_of(self, waiter: Waiter) -> bool:
        first = waiter is self.waiters[0]
        return (first and self._fits(waiter.command)) or self._is_answered(waiter.command)

    def _fits(self, command: Allocate) -> bool:
        return command.num_blocks <= self._available(command.engine)

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
