"""What both session classes have in common: the order of messages, without any I/O.

Rules:
- Messages are made in the order attach, steps, detach, each answered before the next is made; the
  step_id starts at 1 and grows by one with each step that is made.
- A session goes from new to attached to ended, never back. Whatever ends it leaves a text that says
  why, and every later use raises ClosedError with that text.
- One exchange at a time: a second one that is begun meanwhile is an error of the caller and does
  not disturb the first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import SupportsIndex

import grpc

from kvblock import answers, requests
from kvblock.errors import ClosedError, DeadlineExceededError, KVBlockError, UnavailableError
from kvblock.failures import error_of
from kvblock.results import Attachment, StepPolicy, StepResult
from kvblock.settings import Settings
from kvblock.v1 import kvblock_pb2 as pb

DETACHED = "it has detached"
CLOSED = "it was closed"
INTERRUPTED = "a call of it was interrupted before its answer came"


class SessionState:
    """The state of one session, and what it learned when it attached."""

    def __init__(
        self, settings: Settings, pool: str | None, engine: str | None, timeout: float | None
    ) -> None:
        self._settings = settings._replace(
            pool=settings.pool_of(pool),
            engine=settings.engine_of(engine),
            timeout=settings.deadline(timeout),
        )
        self._busy = threading.Lock()
        self._attachment: Attachment | None = None
        self._ended: str | None = None
        self._step_id = 0

    @property
    def attached(self) -> bool:
        """Whether the session is open: attached, and neither left nor broken."""
        return self._attachment is not None and self._ended is None

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self._learned.pool

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._learned.engine

    @property
    def total_blocks(self) -> int:
        """Blocks in the pool."""
        return self._learned.total_blocks

    @property
    def block_size(self) -> int:
        """Token slots per block."""
        return self._learned.block_size

    @property
    def device_id(self) -> int:
        """The device whose memory the blocks number."""
        return self._learned.device_id

    @property
    def held_blocks(self) -> int:
        """Blocks that the engine held already when the session attached."""
        return self._learned.held_blocks

    @property
    def sequences(self) -> int:
        """Sequences that the engine had already when the session attached."""
        return self._learned.sequences

    @property
    def server_epoch(self) -> int:
        """When it differs from that of the engine's last session, earlier blocks are gone."""
        return self._learned.server_epoch

    @property
    def _learned(self) -> Attachment:
        if self._attachment is None:
            raise ClosedError("this session is not attached yet; enter it first")
        return self._attachment

    def _make_attach(self) -> pb.SessionRequest:
        if self._attachment is not None or self._ended is not None:
            raise ClosedError("a session attaches once; make a new one")
        attach = pb.SessionAttach(pool=self._settings.pool, engine=self._settings.engine)
        return pb.SessionRequest(attach=attach)

    def _take_attached(self, answer: pb.SessionResponse) -> None:
        if not answer.HasField("attached"):
            raise self._out_of_turn()
        self._attachment = answers.attachment(answer.attached)

    def _make_step(
        self,
        free: Iterable[SupportsIndex],
        allocate: Iterable[SupportsIndex],
        num_blocks: Iterable[SupportsIndex],
        policy: StepPolicy,
    ) -> pb.SessionRequest:
        self._check_open()
        request = pb.SessionRequest()
        step = request.step
        requests.fill_step(step.step, free, allocate, num_blocks, policy)
        self._step_id += 1
        step.step_id = self._step_id
        return request

    def _take_stepped(self, answer: pb.SessionResponse) -> StepResult:
        stepped = answer.stepped
        if stepped.step_id != self._step_id:
            raise self._out_of_turn()
        return answers.step_result(stepped.result)

    def _make_detach(self) -> pb.SessionRequest:
        self._check_open()
        return pb.SessionRequest(detach=pb.SessionDetach())

    def _take_detached(self, answer: pb.SessionResponse) -> int:
        if not answer.HasField("detached"):
            raise self._out_of_turn()
        return answer.detached.freed_blocks

    def _begin(self) -> None:
        """Claim the stream for one exchange."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("a call of this session is still running; it serves one at a time")

    def _check_open(self) -> None:
        if self._ended is not None:
            raise ClosedError(f"this session has ended: {self._ended}")
        if self._attachment is None:
            raise ClosedError("this session is not attached yet; enter it first")

    def _too_late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"{self._settings.address} did not answer in time; whether the message was carried out"
            " is unknown, so the session is closed; blocks that its engine holds stay held",
            code=grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    def _failure(self, error: grpc.RpcError | None) -> KVBlockError:
        """What to raise when the stream has ended with an error, or without one."""
        if self._ended is not None:
            return ClosedError(f"this session has ended: {self._ended}")
        if error is None:
            return UnavailableError(
                f"{self._settings.address} has broken the session off without an answer",
                code=grpc.StatusCode.UNAVAILABLE,
            )
        return error_of(error, self._settings.address)

    def _out_of_turn(self) -> KVBlockError:
        return KVBlockError(f"{self._settings.address} answered something else than was asked")
