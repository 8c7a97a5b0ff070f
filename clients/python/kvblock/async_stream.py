"""A session's stream in the asyncio client: one message out, one message in.

Rules:
- A timeout is a timer that cancels the call. It costs two calls of the loop; waiting in a task of
  its own, as `asyncio.wait_for` does, costs more than the message.
- gRPC raises CancelledError for a call that was cancelled, also when the task was not. What comes
  out of `exchange` as CancelledError is a cancelled task; everything else is an RpcError, or
  StreamEnded.
- The status of a call that ended while the loop was blocked reaches nobody when the next thing done
  is a write: gRPC puts a fault of its own in its place. It is known then that the call is over, not
  why.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import grpc

from kvblock.frozen import LARGE_BYTES
from kvblock.v1 import kvblock_pb2 as pb


class StreamEnded(Exception):
    """The call is over, and the server has not said why."""


class Call(Protocol):
    """A running Session call."""

    async def write(self, request: pb.SessionRequest) -> None:
        """Send a message."""

    async def read(self) -> object:
        """The next answer, or aio.EOF."""

    async def done_writing(self) -> None:
        """Close this side."""

    def cancel(self) -> bool:
        """End the call."""


class AsyncStream:
    """One running Session call.

    `timed_out` tells, after a failed exchange, that it took too long. `after_failure`: the stream
    before it has failed, so that something may be stuck in the connection: no write is sure to end.
    """

    def __init__(self, call: Call, *, after_failure: bool = False) -> None:
        self.timed_out = False
        self._closed = False
        self._call = call
        self._large_bytes = 0 if after_failure else LARGE_BYTES

    async def exchange(
        self, request: pb.SessionRequest, timeout: float | None
    ) -> pb.SessionResponse:
        """Send a message and answer the next one that comes.

        Raises:
            grpc.RpcError: the call has ended with an error.
            StreamEnded: a timeout, a `close` or a broken connection has ended the call.

        """
        timer = self._start_timer(timeout)
        try:
            await self._write(request, timeout)
            answer = await self._call.read()
        except asyncio.CancelledError:
            if task_is_cancelled(self.timed_out or self._closed):
                raise
            raise StreamEnded from None
        finally:
            if timer is not None:
                timer.cancel()
        if isinstance(answer, pb.SessionResponse):
            return answer
        raise StreamEnded

    async def finish(self, timeout: float | None) -> None:
        """Read a call to its end that has nothing more to say."""
        timer = self._start_timer(timeout)
        try:
            with contextlib.suppress(grpc.RpcError):
                await self._call.done_writing()
                await self._call.read()
        except asyncio.CancelledError:
            if task_is_cancelled(self.timed_out or self._closed):
                raise
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Cancel the call if it is still running."""
        self._closed = True
        # When the loop is closed its calls are over, and cancelling has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._call.cancel()

    async def _write(self, request: pb.SessionRequest, timeout: float | None) -> None:
        try:
            if timeout is None or request.ByteSize() <= self._large_bytes:
                await self._call.write(request)
            else:
                await asyncio.wait_for(self._call.write(request), timeout)
        except asyncio.InvalidStateError:
            # The call was over before; reading says why.
            return
        except asyncio.TimeoutError:
            self._expire()
            raise StreamEnded from None
        except grpc.RpcError as error:
            # A message that could not be written makes gRPC report a fault of its own.
            if error.code() is grpc.StatusCode.INTERNAL:
                raise StreamEnded from None
            raise

    def _start_timer(self, timeout: float | None) -> asyncio.TimerHandle | None:
        if timeout is None:
            return None
        return asyncio.get_running_loop().call_later(timeout, self._expire)

    def _expire(self) -> None:
        self.timed_out = True
        self._call.cancel()


def task_is_cancelled(otherwise_explained: bool) -> bool:
    """Whether a CancelledError was meant for the running task.

    Before Python 3.11 a task does not say so; then it was unless there is another explanation.
    """
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return not otherwise_explained if cancelling is None else cancelling() > 0
