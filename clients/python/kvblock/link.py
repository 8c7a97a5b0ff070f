"""What a session or an engine's lease has running: a stream and a renewal.

Rules:
- Neither refers to the session, so that one which is forgotten is collected; its finalizer calls
  `close` and ends both.
- A lost lease ends what is running before `on_lease_lost` is called.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from kvblock.errors import LeaseLostError
from kvblock.lease import OnLeaseLost
from kvblock.renewal import Renewal


class Stops(Protocol):
    """An event that is set once, for good."""

    def set(self) -> None:
        """Set it."""

    def is_set(self) -> bool:
        """Whether it is set."""


class Closes(Protocol):
    """A stream."""

    def close(self) -> None:
        """Cancel its call if it is still running."""


StopT = TypeVar("StopT", bound=Stops)
StreamT = TypeVar("StreamT", bound=Closes)


class Link(Generic[StreamT, StopT]):
    """The stream and the renewal of now; `stopped` is set by a `close` and by a lost lease."""

    def __init__(self, stopped: StopT, on_lost: OnLeaseLost | None) -> None:
        self.stopped = stopped
        self.stream: StreamT | None = None
        self._renewal: Renewal | None = None
        self._on_lost = on_lost

    def replace(self, stream: StreamT | None) -> None:
        """Use another stream from now on."""
        before, self.stream = self.stream, stream
        if before is not None:
            before.close()
        if stream is not None and self.stopped.is_set():
            stream.close()

    def renew_by(self, renewal: Renewal) -> None:
        """The lease is renewed by this, until the link is closed."""
        self._renewal = renewal
        if self.stopped.is_set():
            renewal.stop()

    def lost(self, error: LeaseLostError) -> None:
        """The lease is lost: end what is running, then call `on_lease_lost`."""
        self.interrupt()
        if self._on_lost is not None:
            self._on_lost(error)

    def close(self) -> None:
        """End at once."""
        self.interrupt()
        if self._renewal is not None:
            self._renewal.stop()

    def interrupt(self) -> None:
        """End what is running; the lease is renewed all the same."""
        self.stopped.set()
        stream = self.stream
        if stream is not None:
            stream.close()
