"""An event that ends pauses in an event loop.

Rules:
- It belongs to no loop until a task waits for it, and is set in the thread of that loop.
"""

from __future__ import annotations

import asyncio
import contextlib


class StopEvent(asyncio.Event):
    """Set once, for good."""

    def set(self) -> None:
        """End all pauses, now and from now on."""
        # A pause whose loop is closed never ends.
        with contextlib.suppress(RuntimeError):
            super().set()
