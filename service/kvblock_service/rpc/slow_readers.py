"""Cuts off sessions whose client leaves its answers unread.

Rules:
- A session writes one answer at a time, and a write ends when gRPC has room for it. So a client
  that does not read holds no more than gRPC's buffers and one answer; this is how long it may.
- A session's own cost is two numbers for each write. What looks at them is one timer of the server.
- A write that has not ended within `seconds` is cut off after at most a quarter more.
"""

import asyncio
from collections.abc import Callable

_LOOKS = 4


class Writes:
    """The writes of one stream: how many were begun, and how many have ended."""

    def __init__(self, cut_off: Callable[[], None]) -> None:
        self.begun = 0
        self.ended = 0
        self.is_cut_off = False
        self._cut_off = cut_off
        self._stuck = (0, 0)

    def look(self) -> None:
        """One of the regular looks: a write that has lasted for all of them is cut off."""
        write, times = self._stuck
        if self.begun == self.ended:
            self._stuck = (0, 0)
        elif self.begun != write:
            self._stuck = (self.begun, 1)
        elif times < _LOOKS:
            self._stuck = (write, times + 1)
        elif not self.is_cut_off:
            self.is_cut_off = True
            self._cut_off()


class SlowReaders:
    """Looks at the writes of all streams, as long as there are any."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._streams: dict[Writes, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, writes: Writes) -> None:
        """Look at the writes of one more stream."""
        self._streams[writes] = None
        if self._timer is None:
            self._wait()

    def leave(self, writes: Writes) -> None:
        """A stream has ended."""
        self._streams.pop(writes, None)
        if not self._streams and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._wait()
        for writes in list(self._streams):
            writes.look()
