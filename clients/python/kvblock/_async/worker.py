"""A task that works beside the engine's: when it is woken, and when it has rested for a while.

Rules:
- It belongs to the running event loop, and refers to nothing that would keep what it works for from
  being collected.
- `work` says for how many seconds it may rest at most; None: until it is woken.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from kvblock._async.cancelling import within

Lock = asyncio.Lock
Work: TypeAlias = "Callable[[bool], Awaitable[float | None]]"


class Worker:
    """The task; `work` is a method, and gets whether it was woken."""

    def __init__(self, work: Work, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._stopped = False
        method: weakref.WeakMethod[Work] = weakref.WeakMethod(work)
        self._task = self._loop.create_task(_run(method, self), name=name)

    def wake(self) -> None:
        """Have it work soon."""
        self._woken.set()

    def stop(self) -> None:
        """Let it end, once what it is in has ended."""
        self._stopped = True
        # A loop that is closed runs nothing any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)

    async def next(self, seconds: float | None) -> bool | None:
        """Rest for so long, or until it is woken: whether it was; None: it is to end."""
        try:
            if seconds is None:
                await self._woken.wait()
            else:
                await within(seconds, self._woken.wait())
        except asyncio.TimeoutError:
            return None if self._stopped else False
        self._woken.clear()
        return None if self._stopped else True


async def _run(method: weakref.WeakMethod[Work], worker: Worker) -> None:
    seconds: float | None = None
    while (woken := await worker.next(seconds)) is not None:
        work = method()
        if work is None:
            return
        seconds = await work(woken)
        del work
