"""The stream and the renewal of an asyncio session.

Rules:
- Neither refers to the session, so that one which is forgotten is collected; its finalizer calls
  `close` and ends both.
- A lost lease ends what is running before the user is told.
- What the renewal's thread has to say is said in the session's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib

from kvblock.async_stream import AsyncStream
from kvblock.ending import Ending
from kvblock.errors import LeaseLostError
from kvblock.lease import OnLeaseLost
from kvblock.renewal import Renewal


class Link:
    """What a session has now; `over` is set when it is closed or its lease is lost."""

    def __init__(self, on_lost: OnLeaseLost | None) -> None:
        self.over = Ending()
        self.stream: AsyncStream | None = None
        self._renewal: Renewal | None = None
        self._on_lost = on_lost
        self._loop: asyncio.AbstractEventLoop | None = None

    def replace(self, stream: AsyncStream | None) -> None:
        """Use another stream from now on."""
        self._loop = asyncio.get_running_loop()
        before, self.stream = self.stream, stream
        if before is not None:
            before.close()
        if stream is not None and self.over.is_set():
            stream.close()

    def keep(self, renewal: Renewal) -> None:
        """The lease is renewed by this, until the session is closed."""
        self._renewal = renewal
        if self.over.is_set():
            renewal.stop()

    def lost(self, error: LeaseLostError) -> None:
        """The lease is lost: let the loop know; to be called from the renewal's thread."""
        # A loop that is closed has nobody left to tell.
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: LeaseLostError) -> None:
        """End what is running, then tell the user."""
        self.interrupt()
        if self._on_lost is not None:
            self._on_lost(error)

    async def finish(self, timeout: float | None) -> None:
        """End in order."""
        if self._renewal is not None:
            self._renewal.stop()
        if self.stream is not None:
            await self.stream.finish(timeout)
            self.replace(None)

    def close(self) -> None:
        """End at once."""
        self.interrupt()
        if self._renewal is not None:
            self._renewal.stop()

    def interrupt(self) -> None:
        """End what is running; the lease is renewed all the same."""
        self.over.set()
        stream = self.stream
        if stream is not None:
            stream.close()
