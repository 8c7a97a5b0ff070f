"""What a frozen server does to gRPC, and how this client goes on all the same.

A server that is stopped but not gone (SIGSTOP, a debugger, swapping) reads nothing. Once the
socket's buffer is full, gRPC cannot give up a message that it has begun to write: the operation
ends neither by its deadline nor by a cancel, and closing the channel waits for it.

Rules:
- A message that may not fit the buffer is not waited for without a limit of our own.
- Closing a channel is not waited for without a limit either; what is left over ends by itself when
  the server goes or goes on, and never keeps the interpreter from exiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LARGE_BYTES = 32_768
"""Longer messages may not fit a socket's buffer."""
OVERTIME = 0.5
"""Seconds by which our own limit is longer than the deadline that gRPC was given."""
CLOSE_SECONDS = 1.0
"""How long closing a channel is waited for."""


def close_in_time(close: Callable[[], None]) -> None:
    """Close a channel in a thread of its own and wait for it a moment."""
    closer = threading.Thread(target=close, name="kvblock-close", daemon=True)
    closer.start()
    closer.join(CLOSE_SECONDS)
