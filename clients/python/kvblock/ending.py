"""An event that ends pauses in an event loop.

Rules:
- It belongs to no loop until somebody waits, and one task waits for it at a time or many do.
- Setting it from the loop's own thread wakes all who wait; a cancelled wait is cancelled at once.
"""

from __future__ import annotations

import asyncio
import contextlib


class Ending:
    """Set once, for good."""

    def __init__(self) -> None:
        self._set = False
        self._pauses: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether it has come."""
        return self._set

    def set(self) -> None:
        """Let it come."""
        self._set = True
        for pause in self._pauses:
            _wake(pause)

    async def wait(self, seconds: float) -> None:
        """Pause for so long, or until it comes."""
        if self._set:
            return
        loop = asyncio.get_running_loop()
        pause: asyncio.Future[None] = loop.create_future()
        # Not asyncio.wait_for: a cancellation that meets the timeout would be lost in it.
        timer = loop.call_later(seconds, _wake, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            timer.cancel()


def _wake(pause: asyncio.Future[None]) -> None:
    # A pause whose loop is closed has nobody left to wake.
    with contextlib.suppress(RuntimeError):
        if not pause.done():
            pause.set_result(None)
