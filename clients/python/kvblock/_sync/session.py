# Generated from kvblock/_async/session.py by scripts/gen_sync.py: change that one.
"""The synchronous session: an engine's attach, steps and detach under one lease.

Rules of use:
- Entering attaches; leaving, in order or by an exception, detaches, and that frees all blocks of
  the engine. A detach that fails while leaving is logged, not raised; call `detach` to have it
  raised.
- The lease is renewed in the background for as long as the session is open. When a stream breaks,
  the server is unavailable for a while or restarts, or its journal cannot be written for a while,
  the session attaches with its epoch on a new stream, within the timeout of the call, and sends the
  step in flight again, which takes effect once.
- A step that gets no answer (its timeout, Ctrl-C) stays the step in flight: until
  `recover` has answered it there is no other, so no block is granted that the engine does not learn
  of. The session goes on then.
- A lost lease is final: `on_lease_lost` is called once, in the renewal's thread, and every use
  raises LeaseLostError. The lease counts as lost when the server says so, and when it was not
  renewed for a TTL, which is before the server can give its blocks to others.
- Any other error that the server answers ends the session: the message had no effect. The lease is
  kept, and the blocks stay held, until the session is left, detached or closed.
- `close` ends the stream and leaves the lease to expire; another session that is given its epoch
  before that goes on with it. One that was not closed by then has lost its lease.
- A session serves one call at a time; leaving it ends one that is still running. One that is
  forgotten is closed when it is collected, at the latest at interpreter exit. `on_lease_lost` keeps
  alive what it refers to.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import SupportsIndex

import grpc

from kvblock._sync.detachable import Detachable
from kvblock._sync.transport import StreamEnded, Transport
from kvblock.errors import KVBlockError, UsageError
from kvblock.hints import EngineHints
from kvblock.lease import AttachOptions
from kvblock.lifecycle import ATTACHED, Event
from kvblock.results import StepPolicy, StepResult
from kvblock.retry import Retries, may_repeat
from kvblock.session_state import LEFT, SessionState
from kvblock.stalled import CLOSE_SECONDS
from kvblock.v1 import kvblock_pb2 as pb


class Session(Detachable, SessionState):
    """One engine's loop under one lease; made by the client's `session`."""

    def __init__(
        self,
        connection: Transport,
        options: AttachOptions,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
    ) -> None:
        settings, traceparent = connection.settings, connection.traceparent
        SessionState.__init__(self, settings, options, pool, engine, timeout, traceparent)
        Detachable.__init__(self, connection, options)

    def __enter__(self) -> Session:
        self.attach()
        return self

    def attach(self, *, timeout: float | None = None) -> None:
        """Open the session, as entering it does. One that failed may be tried again.

        Raises:
            FailedPreconditionError: another client has a lease under the engine's name (reason
                ENGINE_ATTACHED; `retry_after` says when it runs out unless it is renewed), the pool
                is not what is expected (GEOMETRY_MISMATCH), or the server has as many sessions as
                it takes (STATE_LIMIT).
            LeaseLostError: the lease that was to be resumed has ended.
            UnavailableError: no server was there until the timeout.
            DeadlineExceededError: the answer did not come in time.
            ClosedError: this session was attached before; make a new one.

        """
        deadline = self._settings.deadline(timeout)
        self._check_call()
        with self._busy:
            self._check_attachable()
            self._listen()
            retries = Retries(monotonic(), deadline, enabled=self._settings.retries)
            while True:
                self._move(Event.ATTACH_SENT)
                try:
                    answer, sent = self._open(self._attach, retries)
                    break
                except KVBlockError as failure:
                    delay = retries.delay(failure)
                self._connection.pause(self._link.stopped, delay)
            self._renew(self._take_attached(answer, sent))

    def step(
        self,
        *,
        free: Iterable[SupportsIndex] = (),
        allocate: Iterable[SupportsIndex] = (),
        num_blocks: Iterable[SupportsIndex] = (),
        policy: StepPolicy = StepPolicy.ALL_OR_NOTHING,
        release: Iterable[SupportsIndex] = (),
        acquire: SupportsIndex = 0,
        trim: Iterable[SupportsIndex] = (),
        trim_head: Iterable[SupportsIndex] = (),
        trim_tail: Iterable[SupportsIndex] = (),
        hints: EngineHints | None = None,
        timeout: float | None = None,
    ) -> StepResult:
        """One engine iteration: what it gives back, then what it takes.

        `free` and `allocate` are sequence ids, each at most once; `num_blocks` has as many numbers
        as `allocate`, or none: one block each. Any iterable of whole numbers will do, arrays too.

        `release` are acquired blocks to give back, by number, in any order, each once; `acquire` is
        how many blocks to hold outside any table. `trim` are sequences whose tables shrink, by as
        many blocks at the head as `trim_head` says for each, and at the tail as `trim_tail` says; a
        table of which nothing is left ends its sequence. A step frees, releases, trims, allocates,
        and acquires, in this order.

        `hints`: what the engine lacks and could give back; None: as it said last. A stream that
        breaks and a server that restarts only make it slower.

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
        self._check_call()
        with self._busy:
            sent, lease = monotonic(), self._lease
            if self._state is not ATTACHED or sent - lease.confirmed_at >= lease.ttl:
                raise self._unusable()
            by_number = (release, acquire, trim, trim_head, trim_tail)
            request = self._make_step(free, allocate, num_blocks, policy, by_number, hints)
            try:
                answer = self._exchange(request, deadline)
            except KVBlockError as failure:
                if not may_repeat(failure):
                    self._on_failure(failure)
                    raise
                retries = Retries(sent, deadline, enabled=self._settings.retries)
                return self._resend(request, retries, failure)
            if not lease.answered(sent):
                raise self._unusable()
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
        self._check_call()
        with self._busy:
            request = self._step_in_flight()
            retries = Retries(monotonic(), deadline, enabled=self._settings.retries)
            return self._resend(request, retries, None)

    def _check_call(self) -> None:
        self._connection.check_caller()
        if self._busy.locked():
            raise UsageError("a call of this session is still running; it serves one at a time")

    def _end_running_call(self) -> None:
        """End what another caller is still in, and wait for it a moment."""
        if self._busy.locked():
            self._end(Event.LEFT, LEFT)
            self._link.interrupt()
            if self._busy.acquire(timeout=CLOSE_SECONDS):
                self._busy.release()

    def _resend(
        self, request: pb.SessionRequest, retries: Retries, failure: KVBlockError | None
    ) -> StepResult:
        """Send a step on new streams until it is answered."""
        resumed = False
        try:
            while True:
                if failure is not None:
                    self._connection.pause(self._link.stopped, retries.delay(failure))
                if not self.attached or not self.lease_valid:
                    raise self._unusable()
                resumed = False
                try:
                    answer, sent = self._open(self._make_resume(), retries)
                    self._take_resumed(answer, sent)
                    resumed = True
                    sent = monotonic()
                    answer = self._exchange(request, retries.remaining())
                    if not self._lease.answered(sent):
                        raise self._unusable()
                    return self._take_stepped(answer)
                except KVBlockError as error:
                    if not may_repeat(error):
                        raise
                    failure = error
        except KVBlockError as error:
            self._on_failure(error, of_step=resumed)
            raise

    def _open(
        self, attach: pb.SessionRequest, retries: Retries
    ) -> tuple[pb.SessionResponse, float]:
        """Attach on a new stream; answers also from when on the lease is sure to last.

        An attach that was sent before may have been carried out then: its repeat renews the lease.
        """
        recall = self._recall if attach.attach.recall else None
        self._link.replace(self._connection.open_stream(recall))
        sent = monotonic()
        with self._attach_under_way():
            answer = self._exchange(attach, retries.remaining())
        if not answer.HasField("attached"):
            raise self._unexpected_answer()
        return answer, sent

    def _exchange(self, request: pb.SessionRequest, timeout: float | None) -> pb.SessionResponse:
        """Send a message and answer the next one that comes; a failure ends the stream."""
        stream = self._link.stream
        if stream is None:
            raise self._failure(None)
        try:
            return stream.exchange(request, timeout)
        except StreamEnded:
            failure = self._too_late() if stream.timed_out else self._failure(None)
        except grpc.RpcError as error:
            failure = self._failure(error)
        except BaseException:
            self._link.replace(None)
            raise
        self._link.replace(None)
        raise failure
