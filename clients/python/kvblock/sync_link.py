"""The stream and the renewal of a synchronous session.

Rules:
- Neither refers to the session, so that one which is forgotten is collected; its finalizer calls
  `close` and ends both.
- A lost lease ends what is running before the user is told.
- `lost` runs in the renewal's thread, everything else in any.
"""

from __future__ import annotations

import threading

from kvblock.errors import LeaseLostError
from kvblock.lease import OnLeaseLost
from kvblock.renewal import Renewal
from kvblock.sync_stream import SyncStream


class Link:
    """What a session has now; `over` is set when it is closed or its lease is lost."""

    def __init__(self, on_lost: OnLeaseLost | None) -> None:
        self.over = threading.Event()
        self.stream: SyncStream | None = None
        self._renewal: Renewal | None = None
        self._on_lost = on_lost

    def replace(self, stream: SyncStream | None) -> None:
        """Use another stream from now on."""
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
        """The lease is lost: end what is running, then tell the user."""
        self.interrupt()
        if self._on_lost is not None:
            self._on_lost(error)

    def finish(self, timeout: float | None) -> None:
        """End in order."""
        if self._renewal is not None:
            self._renewal.stop()
        if self.stream is not None:
            self.stream.finish(timeout)
            self.stream = None

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
