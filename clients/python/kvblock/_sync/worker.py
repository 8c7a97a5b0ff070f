"""A thread that works beside the engine's: when it is woken, and when it has rested for a while.

Rules:
- It is a daemon, and refers to nothing that would keep what it works for from being collected.
- `work` says for how many seconds it may rest at most; None: until it is woken.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TypeAlias

Lock = threading.Lock
Work: TypeAlias = "Callable[[bool], float | None]"


class Worker:
    """The thread; `work` is a method, and is told whether it was woken."""

    def __init__(self, work: Work, name: str) -> None:
        self._woken = threading.Event()
        self._stopped = False
        method = weakref.WeakMethod(work)  # type: ignore[type-var]
        threading.Thread(target=_run, args=(method, self), name=name, daemon=True).start()

    def wake(self) -> None:
        """Have it work soon."""
        self._woken.set()

    def stop(self) -> None:
        """Let it end, once what it is in has ended."""
        self._stopped = True
        self._woken.set()


def _run(method: weakref.WeakMethod[Work], worker: Worker) -> None:
    seconds: float | None = None
    while True:
        woken = worker._woken.wait(seconds)
        worker._woken.clear()
        work = method()
        if work is None or worker._stopped:
            return
        seconds = work(woken)
        del work
