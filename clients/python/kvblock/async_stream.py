"""A session's stream in the asyncio client: one message out, one message in.

Rules:
- A timeout is a timer that cancels the call. It costs two calls of the loop; waiting in a task of
  its own, as `asyncio.wait_for` does, costs more than the message.
- What comes out of `exchange` as CancelledError is a cancelled task; everything else is an
  RpcError, or StreamEnded.
- The status of a call that ended while the loop was blocked reaches nobody when the next thing done
  is a write: gRPC puts a fault of its own in its place. It is known then that the call is over, not
  why.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import grpc

from kvblock import uncollected
from kvblock.cancelling import cancellations, task_is_cancelled, within
from kvblock.frozen import Outlet
from kvblock.owner import Owner
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
    """One running Session call; `outlet` is that of its connection.

    `timed_out` tells, after a failed exchange, that it took too long.
    """

    def __init__(self, call: Call, outlet: Outlet) -> None:
        self.timed_out = False
        self._closed = False
        self._owner = Owner()
        self._call = call
        self._outlet = outlet
        uncollected.register(self)

    async def exchange(
        self, request: pb.SessionRequest, timeout: float | None
    ) -> pb.SessionResponse:
        """Send a message and answer the next one that comes.

        Raises:
            grpc.RpcError: the call has ended with an error.
            StreamEnded: a timeout, a `close` or a broken connection has ended the call.

        """
        before = cancellations()
        size = request.ByteSize()
        may_be_stuck = self._outlet.begin(size)
        late: bool | None = None
        timer = self._start_timer(timeout)
        try:
            await self._write(request, timeout if may_be_stuck else None)
            answer = await self._call.read()
            if isinstance(answer, pb.SessionResponse):
                late = False
                return answer
        except asyncio.CancelledError:
            if task_is_cancelled(before, self.timed_out or self._closed):
                raise
        finally:
            if timer is not None:
                timer.cancel()
            self._outlet.end(size, self.timed_out or late)
        raise StreamEnded

    async def finish(self, timeout: float | None) -> None:
        """Read a call to its end that has nothing more to say."""
        before = cancellations()
        try:
            with contextlib.suppress(grpc.RpcError, asyncio.TimeoutError):
                if timeout is None:
                    await self._end()
                else:
                    await within(timeout, self._end())
        except asyncio.CancelledError:
            if task_is_cancelled(before, self._closed):
                raise

    def close(self) -> None:
        """Cancel the call if it is still running."""
        if not self._owner.is_here:
            return
        self._closed = True
        # When the loop is closed its calls are over, and cancelling has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self._call.cancel()

    async def _end(self) -> None:
        await self._call.done_writing()
        await self._call.read()

    async def _write(self, request: pb.SessionRequest, limit: float | None) -> None:
        try:
            if limit is None:
                await self._call.write(request)
            else:
                await within(limit, self._call.write(request))
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
