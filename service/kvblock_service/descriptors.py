"""Writing to a descriptor, past Python's own streams.

The interpreter aborts at its exit when a thread stands in one of those.
"""

import os
import select


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however long that takes; raises OSError when it cannot be written."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process that has the descriptor, too, has made it so.
            _wait(descriptor, None)


def write_at_once(descriptor: int, data: bytes) -> bool:
    """Write everything if that takes no waiting; answers whether it was, or raises OSError."""
    while data and _wait(descriptor, 0):
        # So much of a pipe is free when it can be written to.
        os.write(descriptor, data[: select.PIPE_BUF])
        data = data[select.PIPE_BUF :]
    return not data


def _wait(descriptor: int, milliseconds: int | None) -> bool:
    """Wait until a descriptor takes something; answers whether it does."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))
