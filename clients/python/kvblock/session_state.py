"""What a session sends and what an answer means, without any I/O.

Rules:
- Messages are made in the order attach, steps, detach, each answered before the next is made; the
  step_id goes on from the lease's last step and grows by one with each step that is answered.
- A step that was sent and not answered is the only one that may be sent until it is.
- A session goes through the states of `kvblock.lifecycle`. What ends it leaves a text that says
  why, and every later use raises ClosedError with that text; a lost lease raises LeaseLostError.
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

from kvblock import answers, requests, step_requests
from kvblock.errors import (
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    KVBlockError,
    LeaseLostError,
    SessionReplacedError,
    Then,
    UnansweredError,
    UnavailableError,
)
from kvblock.failures import error_of
from kvblock.fencing import new_request_id
from kvblock.hints import EngineHints
from kvblock.lease import AttachOptions, Lease
from kvblock.lease_user import LeaseUser
from kvblock.lifecycle import OPEN, OVER, STEP_ANSWERED, STEP_SENT, UNATTACHED, Event, State
from kvblock.recall import Recall, fill_hints
from kvblock.results import StepPolicy, StepResult
from kvblock.retry import may_repeat
from kvblock.settings import ClientSettings
from kvblock.step_context import Traceparent
from kvblock.v1 import kvblock_pb2 as pb

LEFT = "it was left"


class SessionState(LeaseUser):
    """The state of one session, and what it learned when it attached."""

    _kind = "session"
    _hints: EngineHints | None
    """Those beside the step in flight."""

    def __init__(
        self,
        settings: ClientSettings,
        options: AttachOptions,
        pool: str | None,
        engine: str | None,
        timeout: float | None,
        traceparent: Traceparent | None,
    ) -> None:
        self._settings = settings._replace(
            pool=settings.pool_of(pool),
            engine=settings.engine_of(engine),
            timeout=settings.deadline(timeout),
        )
        self._traceparent = traceparent
        self._attach = pb.SessionRequest(
            attach=requests.attach(
                pb.SessionAttach, self._settings, None, None, options, new_request_id()
            )
        )
        self._attach.attach.recall = options.recall
        # Attaches whose answer did not come: one that is late may yet end the stream after it.
        self._stray_attaches = 0
        self._busy: threading.Lock = threading.Lock()
        self._last_step_id = 0
        self._step, self._step_id = pb.SessionRequest(), 0
        self._last_result: StepResult | None = None
        self._recall, self._hints = Recall(), None

    @property
    def attached(self) -> bool:
        """Whether the session is open: attached, neither left nor failed, its lease not lost."""
        self._settings.owner.check()
        return self._state in OPEN and not self._lease.ended

    @property
    def last_result(self) -> StepResult | None:
        """What the last step came to that was answered, also when a signal cut its call off."""
        return self._last_result

    @property
    def unanswered(self) -> bool:
        """Whether a step was sent and not answered: `recover` answers it."""
        return self.attached and self._state is State.UNANSWERED

    def _check_attachable(self) -> None:
        if self._state not in UNATTACHED:
            raise ClosedError("a session attaches once; make a new one")

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
        self._last_step_id = learned.last_step_id
        lease = self._take_attachment(learned, sent, self._settings.pool, learned.pool)
        self._move(Event.ATTACH_ANSWERED)
        return lease

    def _make_resume(self) -> pb.SessionRequest:
        """An attach that goes on with the lease; it needs no id, since it may come twice."""
        request = pb.SessionRequest(
            attach=pb.SessionAttach(
                pool=self.pool,
                engine=self.engine,
                epoch=self._lease.epoch,
                recall=self._attach.attach.recall,
            )
        )
        if self._attach.attach.HasField("expect"):
            request.attach.expect.CopyFrom(self._attach.attach.expect)
        return request

    def _take_resumed(self, answer: pb.SessionResponse, sent: float) -> None:
        learned = answers.attachment(answer.attached).lease
        if learned.epoch != self._lease.epoch:
            raise self._unexpected_answer()
        self._lease.confirm(sent, learned.ttl)

    def _make_step(
        self,
        free: Iterable[SupportsIndex],
        allocate: Iterable[SupportsIndex],
        num_blocks: Iterable[SupportsIndex],
        policy: StepPolicy,
        by_number: step_requests.ByNumber,
        hints: EngineHints | None = None,
    ) -> pb.SessionRequest:
        request = pb.SessionRequest()
        step = request.step
        step_requests.fill_step(step.step, free, allocate, num_blocks, policy, by_number)
        step.step_id = step_id = self._last_step_id + 1
        if self._traceparent is not None:
            step.traceparent = self._traceparent()
        if hints is not None:
            fill_hints(step.hints, hints)
        self._hints = hints
        self._step, self._step_id = request, step_id
        self._move(STEP_SENT)
        return request

    def _take_stepped(self, answer: pb.SessionResponse) -> StepResult:
        stepped = answer.stepped
        step_id = stepped.step_id
        if step_id != self._step_id:
            raise self._unexpected_answer()
        result = answers.step_result(stepped.result, stepped.owed_blocks)
        self._recall.stepped(self._hints, result)
        self._last_result, self._last_step_id = result, step_id
        self._move(STEP_ANSWERED)
        return result

    def _step_in_flight(self) -> pb.SessionRequest:
        """The step to send again."""
        if not self.attached or not self.lease_valid:
            raise self._unusable()
        if self._state is not State.UNANSWERED:
            raise FailedPreconditionError("every step of this session was answered")
        return self._step

    def _unusable(self) -> KVBlockError:
        if self._state is State.UNANSWERED and self.lease_valid:
            return UnansweredError("the step before this one was not answered; recover answers it")
        return super()._unusable()

    def _on_failure(self, failure: KVBlockError, *, of_step: bool = True) -> None:
        """What a failure means: the step's answer may still be got, or the session ends.

        Not `of_step`: it is that of an attach, which says nothing about the step in flight.
        """
        if isinstance(failure, LeaseLostError):
            self._lease.lose(failure)
        elif (
            of_step
            and not failure.fate_unknown
            and not isinstance(failure, DeadlineExceededError)
            and not may_repeat(failure)
        ):
            self._end(Event.STEP_FAILED, str(failure))

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"{self._settings.address} did not answer in time; whether the message was carried out"
            " is unknown until it is sent again: by recover, or by another attach or detach",
            code=grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    def _failure(self, error: grpc.RpcError | None) -> KVBlockError:
        """What a stream that has ended means; its `then` says whether another one can go on."""
        if self._state in OVER:
            return ClosedError(f"this session has ended: {self._ended_by}")
        if self._lease.lost is not None:
            return self._lease.error()
        if error is None or error.code() is grpc.StatusCode.CANCELLED:
            return UnavailableError(
                f"{self._settings.address} ended the session's stream without an answer",
                code=grpc.StatusCode.UNAVAILABLE,
            )
        failure = error_of(error, self._settings.address)
        if self._state in UNATTACHED:
            return failure
        if isinstance(failure, SessionReplacedError) and self._stray_attaches:
            # The lease goes on in another stream, of an attach of our own that was late.
            self._stray_attaches -= 1
            return UnavailableError(str(failure), code=failure.code, then=Then.RESUME)
        return failure

    def _unexpected_answer(self) -> KVBlockError:
        return KVBlockError(f"{self._settings.address} answered something else than was asked")
