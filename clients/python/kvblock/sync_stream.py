"""A session's stream in the synchronous client: one message out, one message in.

Rules:
- `exchange` is used by one thread at a time; `close` may come from any thread and ends a running
  exchange.
- The stream is cancelled explicitly, never left to the garbage collector: at interpreter exit that
  deadlocks. So nothing that lives as long as the stream (gRPC's threads, the watchdog) may refer to
  the session that owns it; its finalizer, which runs before exit, calls `close`.
- After `close` nothing refers to the call, and no thread of it is left waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Protocol

import grpc

from kvblock.v1 import kvblock_pb2 as pb
from kvblock.watchdog import Watchdog


class Call(Protocol):
    """A running Session call."""

    def __next__(self) -> pb.SessionResponse:
        """The next answer."""

    def cancel(self) -> bool:
        """End it."""


class SyncStream:
    """One running Session call.

    `timed_out` tells, after a failed exchange, that it took too long.
    """

    def __init__(self, start: Callable[[Iterator[pb.SessionRequest]], Call]) -> None:
        self.timed_out = False
        self._watchdog = Watchdog(self._expire)
        self._requests: SimpleQueue[pb.SessionRequest | None] = SimpleQueue()
        self._call: Call | None = start(iter(self._requests.get, None))

    def exchange(self, request: pb.SessionRequest, timeout: float | None) -> pb.SessionResponse:
        """Send a message and answer the next one that comes.

        Raises:
            grpc.RpcError: the call has ended with an error, a timeout or a `close`.
            StopIteration: the server has ended the call.

        """
        call = self._call
        if call is None:
            raise StopIteration
        if timeout is not None:
            self._watchdog.arm(timeout)
        try:
            self._requests.put(request)
            return next(call)
        finally:
            self._watchdog.disarm()

    def finish(self, timeout: float | None) -> None:
        """Read a call to its end that has nothing more to say."""
        call = self._call
        if call is not None:
            if timeout is not None:
                self._watchdog.arm(timeout)
            self._requests.put(None)
            with contextlib.suppress(StopIteration, grpc.RpcError):
                next(call)
        self.close()

    def close(self) -> None:
        """Cancel the call if it is still running."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        self._requests.put(None)
        self._watchdog.stop()

    def _expire(self) -> None:
        self.timed_out = True
        call = self._call
        if call is not None:
            call.cancel()
