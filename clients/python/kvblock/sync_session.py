"""The synchronous session: an engine's attach, steps and detach on one stream.

Its rules of use are those of `kvblock.session`, which is the same for asyncio.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import SupportsIndex, TypeVar

import grpc

from kvblock.errors import KVBlockError
from kvblock.results import StepPolicy, StepResult
from kvblock.session_state import CLOSED, DETACHED, INTERRUPTED, SessionState
from kvblock.settings import Settings
from kvblock.sync_stream import Call, SyncStream
from kvblock.v1 import kvblock_pb2 as pb

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)


class Session(SessionState):
    """One engine's loop on one stream; made by the client's `session`."""

    def __init__(
        self,
        start: Callable[[Iterator[pb.SessionRequest]], Call],
        settings: Settings,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
    ) -> None:
        super().__init__(settings, pool, engine, timeout)
        self._start = start
        self._stream: SyncStream | None = None

    def __enter__(self) -> Session:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.attached:
            try:
                self.detach()
            except KVBlockError as failure:
                _log.warning("engine %r could not detach: %s", self.engine, failure)
        self.close()

    def attach(self, *, timeout: float | None = None) -> None:
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
            self._stream = SyncStream(self._start)
            weakref.finalize(self, self._stream.close)
            self._exchange(request, deadline, self._take_attached)
        finally:
            self._busy.release()

    def step(
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
            return self._exchange(request, deadline, self._take_stepped)
        finally:
            self._busy.release()

    def detach(self, *, timeout: float | None = None) -> int:
        """End the session and free all of the engine's blocks; answers how many these were.

        Raises:
            ClosedError: the session is not attached, or has ended.
            KVBlockError: the server is gone, or did not answer in time; the session is closed.

        """
        deadline = self._settings.deadline(timeout)
        self._begin()
        try:
            freed = self._exchange(self._make_detach(), deadline, self._take_detached)
            if self._stream is not None:
                self._stream.finish(deadline)
            self._end(DETACHED)
        finally:
            self._busy.release()
        return freed

    def close(self) -> None:
        """Break the stream off without a detach: blocks that the engine holds stay held."""
        self._end(CLOSED)

    def _exchange(
        self,
        request: pb.SessionRequest,
        timeout: float | None,
        take: Callable[[pb.SessionResponse], ResultT],
    ) -> ResultT:
        """Send a message and answer what `take` makes of the next one; failing ends the session."""
        stream = self._stream
        assert stream is not None
        try:
            return take(stream.exchange(request, timeout))
        except KVBlockError as error:
            failure = error
        except StopIteration:
            failure = self._failure(None)
        except grpc.RpcError as error:
            failure = self._too_late() if stream.timed_out else self._failure(error)
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
