"""What a CancelledError has cancelled, and waiting for a limited time without losing one.

Rules:
- gRPC raises CancelledError for a call that was cancelled, also when the task was not.
- A cancellation of the running task always comes through. `asyncio.wait_for` loses one that meets
  the end of what it waits for, before Python 3.12.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


def cancellations() -> int:
    """How often the running task was cancelled so far; always 0 before Python 3.11."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return 0 if cancelling is None else cancelling()


def task_is_cancelled(before: int, otherwise_explained: bool) -> bool:
    """Whether a CancelledError was meant for the running task.

    `before`: its `cancellations` when it began to wait. They stay when a cancellation was caught,
    so they alone say nothing; without any, and before Python 3.11, what counts is whether there is
    another explanation.
    """
    now = cancellations()
    if now > before:
        return True
    return not otherwise_explained and (now > 0 or not hasattr(asyncio.Task, "cancelling"))


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """The outcome of some work, which is cancelled after so many seconds.

    Raises:
        asyncio.TimeoutError: it was cancelled; whether it has ended is not waited for.

    """
    task = asyncio.ensure_future(work)
    # Whoever is cancelled meanwhile does not ask how it ended: asyncio would log an exception.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
    raise asyncio.TimeoutError
