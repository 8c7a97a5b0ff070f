"""A thread that works beside the engine's: when it is woken, and when it has rested for a while.

Rules:
- It is a daemon, and refers to nothing that would keep what it works for from being collected.
- `work` says for how many seconds it may rest at most; None: until it is woken.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeAlias

__all__ = ["Lock", "Worker"]

Work: TypeAlias = "Callable[[bool], float | None]"


class Worker:
    """The thread; `work` is a method, and gets whether it was woken."""

    def __init__(self, work: Work, name: str) -> None:
        # To wake it is one call into the interpreter: it is done within an engine's iteration.
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._stopped = False
        method: weakref.WeakMethod[Work] = weakref.WeakMethod(work)
        threading.Thread(target=_run, args=(method, self), name=name, daemon=True).start()

    def wake(self) -> None:
        """Have it work soon."""
        if self._woken.empty():
            self._woken.put(None)

    def stop(self) -> None:
        """Let it end, once what it is in has ended."""
        self._stopped = True
        self._woken.put(None)

    def next(self, seconds: float | None) -> bool | None:
        """Rest for so long, or until it is woken: whether it was; None: it is to end."""
        try:
            self._woken.get(timeout=seconds)
        except Empty:
            return False
        return None if self._stopped else True


def _run(method: weakref.WeakMethod[Work], worker: Worker) -> None:
    seconds: float | None = None
    while (woken := worker.next(seconds)) is not None:
        work = method()
        if work is None:
            return
        seconds = work(woken)
        del work
