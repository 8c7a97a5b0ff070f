"""What a stalled server does to gRPC, and how this client goes on all the same.

A server that is stopped but not gone (SIGSTOP, a debugger, swapping) reads nothing. Once the
socket's buffer is full, gRPC cannot give up a message that it has begun to write: the operation
ends neither by its deadline nor by a cancel, and closing the channel waits for it.

Rules:
- A message that may not fit the buffer is not waited for without a limit of our own. Nor is any
  other while such a one is under way in the same connection, or after one took too long, until
  something is answered: it may be stuck behind.
- Closing a channel is not waited for without a limit either; what is left ends by itself when the
  server ends or runs again, and never keeps the interpreter from exiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kvblock.errors import DeadlineExceededError, KVBlockError

LARGE_BYTES = 32_768
"""Longer messages may not fit a socket's buffer."""
GRACE_SECONDS = 0.5
"""Seconds by which our own limit is longer than the deadline that gRPC was given."""
CLOSE_SECONDS = 1.0
"""How long closing a channel is waited for."""


class SendMonitor:
    """Which of a connection's messages may be stuck on their way out. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._large = 0
        self._late = False

    def begin(self, size: int) -> bool:
        """A message of so many bytes is going out; answers whether it may be stuck."""
        with self._lock:
            if size > LARGE_BYTES:
                self._large += 1
                return True
            return self._late or self._large > 0

    def end(self, size: int, late: bool | None) -> None:
        """It is not waited for any more: it took too long, was answered, or neither (None)."""
        with self._lock:
            if size > LARGE_BYTES:
                self._large -= 1
            if late is not None:
                self._late = late


def timed_out(error: KVBlockError) -> bool | None:
    """Whether a call took too long, by its error: see `SendMonitor.end`."""
    if isinstance(error, DeadlineExceededError):
        return True
    return None if error.reason is None else False


def close_in_time(close: Callable[[], None]) -> None:
    """Close a channel in a thread of its own and wait for it a moment."""
    closer = threading.Thread(target=close, name="kvblock-close", daemon=True)
    closer.start()
    closer.join(CLOSE_SECONDS)
