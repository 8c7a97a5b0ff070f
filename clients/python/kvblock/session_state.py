"""What both session classes have in common: the order of messages, without any I/O.

Rules:
- Messages are made in the order attach, steps, detach, each answered before the next is made; the
  step_id goes on from the lease's last step and grows by one with each step that is answered.
- A step that was sent and not answered is kept, and is the only one that may be sent until it is.
- A session goes from new to attached to ended, never back. What ends it leaves a text that says
  why, and every later use raises ClosedError with that text; a lost lease raises LeaseLostError.
- An ended session may still hold its lease: until it is detached, closed or lost.
- One exchange at a time: a second one that is begun meanwhile is an error of the caller and does
  not disturb the first. Only leaving the session ends one that is running.
- An exception may come between any two statements, by a signal: each of them leaves a state from
  which the step in flight can be sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import SupportsIndex

import grpc

from kvblock import answers, requests
from kvblock.errors import (
    ClosedError,
    DeadlineExceededError,
    ErrorReason,
    FailedPreconditionError,
    KVBlockError,
    LeaseLostError,
    UnansweredError,
    UnavailableError,
    UsageError,
)
from kvblock.failures import error_of
from kvblock.fencing import new_request_id
from kvblock.holder import NO_LEASE, LeaseHolder
from kvblock.lease import Lease, Terms
from kvblock.results import StepPolicy, StepResult
from kvblock.settings import Settings
from kvblock.step_context import Traceparent
from kvblock.v1 import kvblock_pb2 as pb

DETACHED = "it has detached"
DETACHING = "its detach was not answered; detach again to learn of its end"
CLOSED = "it was closed"
LEFT = "it was left"
_PASSING = (ErrorReason.RATE_LIMITED, ErrorReason.SLOW_READER)
"""Why a stream may end that another one can go on for, as after UNAVAILABLE."""
RENEW = pb.SessionRequest(renew=pb.SessionRenew())


class SessionState(LeaseHolder):
    """The state of one session, and what it learned when it attached."""

    def __init__(
        self,
        settings: Settings,
        terms: Terms,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
        traceparent: Traceparent | None = None,
    ) -> None:
        self._traceparent = traceparent
        self._settings = settings._replace(
            pool=settings.pool_of(pool),
            engine=settings.engine_of(engine),
            timeout=settings.deadline(timeout),
        )
        self._terms = terms
        self._attach_id = new_request_id()
        self._attach_sent = False
        # Attaches whose answer did not come: one that is late may yet end the stream after it.
        self._stray_attaches = 0
        self._detach: pb.DetachEngineRequest | None = None
        self._busy = threading.Lock()
        self._ended: str | None = None
        self._let_go = False
        self._last_step_id = 0
        self._unanswered: pb.SessionRequest | None = None

    @property
    def attached(self) -> bool:
        """Whether the session is open: attached, neither left nor failed, its lease not lost."""
        self._settings.owner.check()
        return self._attachment is not None and self._ended is None and not self._lease.over

    @property
    def unanswered(self) -> bool:
        """Whether a step was sent and not answered: `recover` answers it."""
        return self._unanswered is not None and self.attached

    def _make_attach(self) -> pb.SessionRequest:
        if self._attachment is not None or self._ended is not None:
            raise ClosedError("a session attaches once; make a new one")
        terms = self._terms
        request = pb.SessionRequest(
            attach=pb.SessionAttach(
                pool=self._settings.pool,
                engine=self._settings.engine,
                epoch=terms.epoch,
                takeover=terms.takeover,
                request_id=self._attach_id,
            )
        )
        if terms.ttl is not None:
            requests.fill_duration(request.attach.ttl, terms.ttl)
        return request

    def _sent_before(self) -> bool:
        """Whether the attach was sent before, so that it may have been carried out then."""
        before, self._attach_sent = self._attach_sent, True
        return before

    @contextmanager
    def _attach_under_way(self) -> Iterator[None]:
        """For as long as an attach waits for its answer, of whatever kind."""
        self._stray_attaches += 1
        try:
            yield
        except KVBlockError as failure:
            if failure.reason is not None:
                self._stray_attaches -= 1
            raise
        self._stray_attaches -= 1

    def _take_attached(self, answer: pb.SessionResponse, sent: float) -> Lease:
        learned = answers.attachment(answer.attached)
        lease = Lease(learned.engine, learned.lease.epoch, learned.lease.ttl, sent)
        self._settings.leases.add(lease, learned.engine, self._settings.pool, learned.pool)
        self._attachment, self._lease, self._last_step_id = learned, lease, learned.last_step_id
        return lease

    def _make_resume(self) -> pb.SessionRequest:
        """An attach that goes on with the lease; it needs no id, since it may come twice."""
        request = pb.SessionRequest(
            attach=pb.SessionAttach(pool=self.pool, engine=self.engine, epoch=self._lease.epoch)
        )
        requests.fill_duration(request.attach.ttl, self._lease.ttl or self.ttl)
        return request

    def _take_resumed(self, answer: pb.SessionResponse, sent: float) -> None:
        learned = answers.attachment(answer.attached).lease
        if learned.epoch != self._lease.epoch:
            raise self._out_of_turn()
        self._lease.confirm(sent, learned.ttl)

    def _make_step(
        self,
        free: Iterable[SupportsIndex],
        allocate: Iterable[SupportsIndex],
        num_blocks: Iterable[SupportsIndex],
        policy: StepPolicy,
    ) -> pb.SessionRequest:
        request = pb.SessionRequest()
        step = request.step
        requests.fill_step(step.step, free, allocate, num_blocks, policy)
        step.step_id = self._last_step_id + 1
        if self._traceparent is not None:
            step.traceparent = self._traceparent()
        self._unanswered = request
        return request

    def _take_stepped(self, answer: pb.SessionResponse) -> StepResult:
        stepped = answer.stepped
        if stepped.step_id != self._last_step_id + 1:
            raise self._out_of_turn()
        result = answers.step_result(stepped.result)
        self._unanswered = None
        self._last_step_id = stepped.step_id
        return result

    def _step_in_flight(self) -> pb.SessionRequest:
        """The step to send again."""
        request = self._unanswered
        if not self.attached or not self.lease_valid:
            raise self._refusal()
        if request is None:
            raise FailedPreconditionError("every step of this session was answered")
        return request

    def _make_detach(self, timeout: float | None) -> tuple[pb.DetachEngineRequest, float | None]:
        """The detach, the same one each time, and how long to try; nothing is renewed from now."""
        if self._let_go or self._attachment is None:
            raise self._refusal()
        if self._detach is None:
            if not self.lease_valid:
                raise self._refusal()
            self._detach = pb.DetachEngineRequest(
                pool=self.pool,
                engine=self.engine,
                epoch=self.epoch,
                request_id=new_request_id(),
            )
            self._ended = DETACHING
        return self._detach, self._lease.farewell(timeout)

    def _over(self, why: str) -> None:
        """The session and its lease have ended."""
        if not self._let_go:
            self._let_go, self._ended = True, why
        self._settings.leases.forget(self._lease)

    def _admit(self) -> None:
        """To be asked before `_busy` is taken, which nobody waits for.

        Raises:
            UsageError: it is another process's, or a call is running.

        """
        self._settings.owner.check()
        if self._busy.locked():
            raise UsageError("a call of this session is still running; it serves one at a time")

    def _refusal(self) -> KVBlockError:
        """Why no step can be made."""
        lease = self._lease
        if not self._let_go and lease is not NO_LEASE and not self.lease_valid:
            error = lease.refusal()
            if isinstance(error, LeaseLostError):
                return error
        if self._ended is not None:
            return ClosedError(f"this session has ended: {self._ended}")
        if self._attachment is None:
            return ClosedError("this session is not attached yet; enter it first")
        return UnansweredError("the step before this one was not answered; recover answers it")

    def _judge(self, failure: KVBlockError, *, of_step: bool = True) -> None:
        """What a failure means: the step's answer may still be got, or the session ends.

        Not `of_step`: it is that of an attach, which says nothing about the step in flight.
        """
        if isinstance(failure, LeaseLostError):
            self._lease.lose(failure)
        elif (
            of_step
            and not failure.fate_unknown
            and not isinstance(failure, (DeadlineExceededError, UnavailableError))
        ):
            self._unanswered = None
            self._ended = self._ended or str(failure)

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"{self._settings.address} did not answer in time; whether the message was carried out"
            " is unknown until it is sent again: by recover, or by another attach or detach",
            code=grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    def _failure(self, error: grpc.RpcError | None) -> KVBlockError:
        """What a stream that has ended means: UnavailableError where another one can go on."""
        if self._ended is not None:
            return ClosedError(f"this session has ended: {self._ended}")
        if self._lease.lost is not None:
            return self._lease.refusal()
        if error is None or (error.code() is grpc.StatusCode.CANCELLED):
            return UnavailableError(
                f"{self._settings.address} has broken the session off without an answer",
                code=grpc.StatusCode.UNAVAILABLE,
            )
        failure = error_of(error, self._settings.address)
        if self._attachment is None:
            return failure
        if failure.reason is ErrorReason.ENGINE_ATTACHED:
            return self._taken_away(failure)
        if failure.reason in _PASSING:
            passing = UnavailableError(str(failure), reason=failure.reason, code=failure.code)
            passing.retry_after = failure.retry_after
            return passing
        return failure

    def _taken_away(self, failure: KVBlockError) -> KVBlockError:
        """What it means that somebody else is attached under our name."""
        if failure.retry_after is None and self._stray_attaches:
            # The lease goes on in another stream, of an attach of our own that was late.
            self._stray_attaches -= 1
            return UnavailableError(str(failure), code=failure.code)
        return LeaseLostError(
            str(failure), reason=failure.reason, code=failure.code, metadata=failure.metadata
        )

    def _out_of_turn(self) -> KVBlockError:
        return KVBlockError(f"{self._settings.address} answered something else than was asked")
