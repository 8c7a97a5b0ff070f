"""A session's stream in the asyncio client: one message out, one message in.

Rules:
- A timeout is a timer that cancels the call. It costs two calls of the loop; waiting in a task of
  its own, as `asyncio.wait_for` does, costs more than the message.
- Where something may come unasked, a task of the stream's own reads all that comes. Nothing that
  lives as long as that task refers to the session.
- A CancelledError that comes out of `exchange` means that the task was cancelled.
- The status of a call that ended while the loop was blocked, or before it began, is lost when the
  next operation is to send something: gRPC puts an error of its own in its place. It is known then
  that the call has ended, not why.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeAlias

import grpc
from grpc import aio

from kvblock import retained
from kvblock._async.cancelling import cancellations, task_is_cancelled, within
from kvblock._async.transport import Stream, StreamEnded
from kvblock.owner import OwnerProcess
from kvblock.recall import Recall
from kvblock.stalled import SendMonitor
from kvblock.v1 import kvblock_pb2 as pb

_Call: TypeAlias = "aio.StreamStreamCall[pb.SessionRequest, pb.SessionResponse]"
_Answers: TypeAlias = "asyncio.Queue[pb.SessionResponse | grpc.RpcError | None]"


class SessionStream(Stream):
    """One running Session call; `sends` is that of its connection.

    `recall` gets what comes unasked; None: nothing does.
    """

    def __init__(self, call: _Call, sends: SendMonitor, recall: Recall | None) -> None:
        self.timed_out = False
        self._closed = False
        self._owner = OwnerProcess()
        self._call = call
        self._sends = sends
        self._answers: _Answers | None = None
        if recall is not None:
            self._answers = asyncio.Queue()
            self._reader = asyncio.create_task(_read(call, self._answers, recall))
        retained.register(self)

    async def exchange(
        self, request: pb.SessionRequest, timeout: float | None
    ) -> pb.SessionResponse:
        """Send a message and answer the next one that comes."""
        before = cancellations()
        size = request.ByteSize()
        may_block = self._sends.begin(size)
        late: bool | None = None
        loop = asyncio.get_running_loop()
        timer = None if timeout is None else loop.call_later(timeout, self._expire)
        try:
            await self._write(request, timeout if may_block else None)
            answer = await self._next()
            if isinstance(answer, pb.SessionResponse):
                late = False
                return answer
        except asyncio.CancelledError:
            if task_is_cancelled(before, self.timed_out or self._closed):
                raise
        except grpc.RpcError as error:
            if not _is_of_library(error):
                raise
        finally:
            if timer is not None:
                timer.cancel()
            self._sends.end(size, self.timed_out or late)
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
        # When the loop is closed its calls have ended, and there is nothing to cancel.
        with contextlib.suppress(RuntimeError):
            self._call.cancel()

    async def _end(self) -> None:
        await self._call.done_writing()
        await self._next()

    async def _next(self) -> object:
        """The next message that is an answer, or what stands for the end."""
        if self._answers is None:
            return await self._call.read()
        answer = await self._answers.get()
        if isinstance(answer, grpc.RpcError):
            raise answer
        return answer

    async def _write(self, request: pb.SessionRequest, limit: float | None) -> None:
        try:
            if limit is None:
                await self._call.write(request)
            else:
                await within(limit, self._call.write(request))
        except asyncio.InvalidStateError:
            # The call had ended before; reading says why.
            return
        except asyncio.TimeoutError:
            self._expire()
            raise StreamEnded from None

    def _expire(self) -> None:
        self.timed_out = True
        self._call.cancel()


def _is_of_library(error: grpc.RpcError) -> bool:
    """Whether gRPC itself failed in sending, its metadata or a message: a server sends trailers."""
    return error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()


async def _read(call: _Call, answers: _Answers, recall: Recall) -> None:
    """Pass on what a call answers, and at last what it ends with; None: nobody said with what."""
    end: grpc.RpcError | None = None
    try:
        while isinstance(answer := await call.read(), pb.SessionResponse):
            if not recall.arrived(answer):
                answers.put_nowait(answer)
    except grpc.RpcError as error:
        end = error
    except asyncio.CancelledError:
        # The call was cancelled, or the loop ends: both end the stream.
        end = None
    finally:
        recall.stream_ended()
        answers.put_nowait(end)
