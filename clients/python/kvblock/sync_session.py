"""The synchronous session: an engine's attach, steps and detach on one stream.

Its rules of use are those of `kvblock.session`, which is the same for asyncio.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import SupportsIndex

import grpc

from kvblock.errors import KVBlockError, LeaseLostError, UnavailableError
from kvblock.frozen import CLOSE_SECONDS
from kvblock.lease import Terms
from kvblock.renewal import Renewal
from kvblock.results import StepPolicy, StepResult
from kvblock.retry import Tries
from kvblock.session_state import CLOSED, DETACHED, LEFT, RENEW, SessionState
from kvblock.settings import Settings
from kvblock.sync_connection import SyncConnection
from kvblock.sync_link import Link
from kvblock.v1 import kvblock_pb2 as pb

_log = logging.getLogger(__name__)


class Session(SessionState):
    """One engine's loop under one lease; made by the client's `session`."""

    def __init__(
        self,
        connection: SyncConnection,
        settings: Settings,
        terms: Terms,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
    ) -> None:
        super().__init__(settings, terms, pool, engine, timeout, connection.traceparent)
        self._connection = connection
        self._link = Link(terms.on_lost)
        settings.owner.finalize(self, self._link.close)

    def __enter__(self) -> Session:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._settings.owner.is_here:
            return
        try:
            if self.lease_valid:
                self._end_running_call()
                self.detach()
        except (KVBlockError, RuntimeError) as failure:
            _log.warning("engine %r could not detach: %s", self.engine, failure)
        finally:
            self.close()

    def attach(self, *, timeout: float | None = None) -> None:
        """Open the session, as entering it does. One that failed may be tried again.

        Raises:
            FailedPreconditionError: another client has a lease under the engine's name (reason
                ENGINE_ATTACHED; `retry_after` says when it runs out unless it is renewed), or the
                server has as many sessions as it takes (STATE_LIMIT).
            LeaseLostError: the lease that was to be resumed has ended.
            UnavailableError: no server was there until the timeout.
            DeadlineExceededError: the answer did not come in time.
            ClosedError: this session was attached before; make a new one.

        """
        deadline = self._settings.deadline(timeout)
        self._admit()
        with self._busy:
            request = self._make_attach()
            tries = Tries(monotonic(), deadline, again=self._settings.retries)
            while True:
                try:
                    answer, sent = self._open(request, tries, confirm=self._sent_before())
                    break
                except UnavailableError as failure:
                    pause = tries.pause(failure)
                self._connection.pause(self._link.over, pause)
            lease = self._take_attached(answer, sent)
            self._link.keep(Renewal(lease, self._settings, self.pool, self._link.lost))

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
        A stream that breaks and a server that restarts only make it slower.

        Raises:
            InvalidArgumentError: found here, nothing was sent and the session goes on.
            DeadlineExceededError: the answer did not come in time; `recover` gets it.
            UnavailableError: no server was there until the timeout; `recover` gets the answer.
            UnansweredError: the step before this one was not answered; `recover` answers it.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: the session is not attached, or has ended.
            KVBlockError: the server refused the message; the session has ended, its blocks stay
                held until it is detached or closed.

        """
        deadline = self._settings.deadline(timeout)
        self._admit()
        with self._busy:
            sent, lease = monotonic(), self._lease
            if (
                sent - lease.confirmed_at >= lease.ttl
                or self._unanswered is not None
                or self._ended is not None
            ):
                raise self._refusal()
            request = self._make_step(free, allocate, num_blocks, policy)
            try:
                answer = self._exchange(request, deadline)
            except UnavailableError as failure:
                tries = Tries(sent, deadline, again=self._settings.retries)
                return self._insist(request, tries, failure)
            except KVBlockError as failure:
                self._judge(failure)
                raise
            if not lease.answered(sent):
                raise self._refusal()
            return self._take_stepped(answer)

    def recover(self, *, timeout: float | None = None) -> StepResult:
        """Answer the step that was not answered. It is sent again and takes effect once.

        Raises:
            FailedPreconditionError: every step was answered.
            DeadlineExceededError, UnavailableError: as `step`; it may be tried again.
            LeaseLostError, ClosedError: as `step`.
            KVBlockError: the server refused the step, which ends the session; or it refused to go
                on with the session for now: `unanswered` is true then, and it may be tried again.

        """
        deadline = self._settings.deadline(timeout)
        self._admit()
        with self._busy:
            request = self._step_in_flight()
            tries = Tries(monotonic(), deadline, again=self._settings.retries)
            return self._insist(request, tries, None)

    def detach(self, *, timeout: float | None = None) -> int:
        """End the session and free all of the engine's blocks; answers how many these were.

        Raises:
            DeadlineExceededError, UnavailableError: no answer until the timeout, or for as long as
                the lease can last, since it is not renewed any more; detach again to learn of its
                end.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: the session is not attached, or was detached or closed.

        """
        deadline = self._settings.deadline(timeout)
        self._admit()
        with self._busy:
            request, deadline = self._make_detach(deadline)
            tries = Tries(monotonic(), deadline)
            self._link.finish(tries.remaining())
            method = self._connection.service.DetachEngine
            try:
                freed = self._connection.call(method, request, tries.remaining()).freed_blocks
            except LeaseLostError as failure:
                self._over(str(failure))
                raise
            self._over(DETACHED)
        return freed

    def close(self) -> None:
        """Break the stream off without a detach: the lease runs out, then its blocks are taken."""
        if self._settings.owner.is_here:
            self._over(CLOSED)
            self._link.close()

    def _end_running_call(self) -> None:
        """Break off what another thread is still in, and wait for it a moment."""
        if self._busy.locked():
            self._ended = self._ended or LEFT
            self._link.interrupt()
            if self._busy.acquire(timeout=CLOSE_SECONDS):
                self._busy.release()

    def _insist(
        self, request: pb.SessionRequest, tries: Tries, failure: UnavailableError | None
    ) -> StepResult:
        """Send a step on new streams until it is answered."""
        resumed = False
        try:
            while True:
                if failure is not None:
                    self._connection.pause(self._link.over, tries.pause(failure))
                if not self.attached or not self.lease_valid:
                    raise self._refusal()
                resumed = False
                try:
                    answer, sent = self._open(self._make_resume(), tries)
                    self._take_resumed(answer, sent)
                    resumed = True
                    sent = monotonic()
                    answer = self._exchange(request, tries.remaining())
                    if not self._lease.answered(sent):
                        raise self._refusal()
                    return self._take_stepped(answer)
                except UnavailableError as error:
                    failure = error
        except KVBlockError as error:
            self._judge(error, of_step=resumed)
            raise

    def _open(
        self, attach: pb.SessionRequest, tries: Tries, *, confirm: bool = False
    ) -> tuple[pb.SessionResponse, float]:
        """Attach on a new stream; answers also from when on the lease is sure to last.

        An attach that was sent before may have been carried out then, and its repetition renews
        nothing: `confirm` renews.
        """
        self._link.replace(self._connection.open_stream())
        sent = monotonic()
        with self._attach_under_way():
            answer = self._exchange(attach, tries.remaining())
        if not answer.HasField("attached"):
            raise self._out_of_turn()
        if confirm:
            sent = monotonic()
            self._exchange(RENEW, tries.remaining())
        return answer, sent

    def _exchange(self, request: pb.SessionRequest, timeout: float | None) -> pb.SessionResponse:
        """Send a message and answer the next one that comes; a failure ends the stream."""
        stream = self._link.stream
        if stream is None:
            raise self._failure(None)
        try:
            return stream.exchange(request, timeout)
        except StopIteration:
            failure = self._too_late() if stream.timed_out else self._failure(None)
        except grpc.RpcError as error:
            failure = self._failure(error)
        except BaseException:
            self._link.replace(None)
            raise
        self._link.replace(None)
        raise failure
