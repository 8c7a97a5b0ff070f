"""The asyncio session: an engine's attach, steps and detach on one stream.

Rules of use, which hold for the synchronous class too:
- Entering attaches; leaving, in order or by an exception, detaches, and that frees all blocks of
  the engine. A detach that fails while leaving is logged, not raised; call `detach` to be told.
- `close` breaks the stream off and leaves the blocks held: a later session under the same engine
  name finds them.
- A session serves one call at a time. It ends with the first error that the server answers, with a
  timeout, and with an interrupted call (the fate of the message is unknown then); after that it
  only says why it has ended, and blocks that the engine holds stay held.
- A session that is forgotten is broken off when it is collected, at the latest at interpreter exit.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import SupportsIndex, TypeVar

import grpc

from kvblock.async_stream import AsyncStream, Call, StreamEnded
from kvblock.errors import KVBlockError
from kvblock.results import StepPolicy, StepResult
from kvblock.session_state import CLOSED, DETACHED, INTERRUPTED, SessionState
from kvblock.settings import Settings
from kvblock.v1 import kvblock_pb2 as pb

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)


class AsyncSession(SessionState):
    """One engine's loop on one stream; made by the client's `session`."""

    def __init__(
        self,
        start: Callable[[], Call],
        settings: Settings,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
    ) -> None:
        super().__init__(settings, pool, engine, timeout)
        self._start = start
        self._stream: AsyncStream | None = None

    async def __aenter__(self) -> AsyncSession:
        await self.attach()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.attached:
            try:
                await self.detach()
            except KVBlockError as failure:
                _log.warning("engine %r could not detach: %s", self.engine, failure)
        await self.close()

    async def attach(self, *, timeout: float | None = None) -> None:
        """Open the session, as entering it does.

        Raises:
            FailedPreconditionError: another live session is attached under the engine's name
                (reason ENGINE_ATTACHED), or the server has as many as it takes (STATE_LIMIT).
            ClosedError: this session was attached before; make a new one.

        """
        deadline = self._settings.deadline(timeout)
        self._begin()
        try:
            request = self._make_attach()
            self._stream = AsyncStream(self._start())
            weakref.finalize(self, self._stream.close)
            await self._exchange(request, deadline, self._take_attached)
        finally:
            self._busy.release()

    async def step(
        self,
        *,
        free: Iterable[SupportsIndex] = (),
        allocate: Iterable[SupportsIndex] = (),
        num_blocks: Iterable[SupportsIndex] = (),
        policy: StepPolicy = StepPolicy.ALL_OR_NOTHING,
        timeout: float | None = None,
    ) -> StepResult:
        """One engine iteration: free sequences, then let others' tables grow.

        `free` and `allocate` are sequence ids, each at most once; `num_blocks` has as many numbers
        as `allocate`, or none: one block each. Any iterable of whole numbers will do, arrays too.

        Raises:
            InvalidArgumentError: found here, nothing was sent and the session goes on.
            DeadlineExceededError: the answer did not come in time; the session is closed.
            ClosedError: the session is not attached, or has ended.
            KVBlockError: the server refused the message, or is gone; the session is closed.

        """
        deadline = self._settings.deadline(timeout)
        self._begin()
        try:
            request = self._make_step(free, allocate, num_blocks, policy)
            return await self._exchange(request, deadline, self._take_stepped)
        finally:
            self._busy.release()

    async def detach(self, *, timeout: float | None = None) -> int:
        """End the session and free all of the engine's blocks; answers how many these were.

        Raises:
            ClosedError: the session is not attached, or has ended.
            KVBlockError: the server is gone, or did not answer in time; the session is closed.

        """
        deadline = self._settings.deadline(timeout)
        self._begin()
        try:
            freed = await self._exchange(self._make_detach(), deadline, self._take_detached)
            if self._stream is not None:
                await self._stream.finish(deadline)
            self._end(DETACHED)
        finally:
            self._busy.release()
        return freed

    async def close(self) -> None:
        """Break the stream off without a detach: blocks that the engine holds stay held."""
        self._end(CLOSED)

    async def _exchange(
        self,
        request: pb.SessionRequest,
        timeout: float | None,
        take: Callable[[pb.SessionResponse], ResultT],
    ) -> ResultT:
        """Send a message and answer what `take` makes of the next one; failing ends the session."""
        stream = self._stream
        assert stream is not None
        try:
            return take(await stream.exchange(request, timeout))
        except KVBlockError as error:
            failure = error
        except StreamEnded:
            failure = self._too_late() if stream.timed_out else self._failure(None)
        except grpc.RpcError as error:
            failure = self._failure(error)
        except BaseException:
            self._end(INTERRUPTED)
            raise
        self._end(str(failure))
        raise failure

    def _end(self, why: str) -> None:
        if self._ended is None:
            self._ended = why
        if self._stream is not None:
            self._stream.close()
