"""How many calls are served at once, and which one is evicted when all slots are in use.

Rules:
- A call has a slot from its admission until its handler ends. One that is refused never has one.
- Until the request of a call has arrived, or the first message of its stream, the call may be
  evicted: after `request_seconds`, or at once when no slot is free and another call comes. The one
  that has waited longest is evicted. So calls without a request cannot keep others out.
- Renewals and health checks, which are short and keep engines alive, have RESERVED slots more than
  other calls.
"""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

import grpc

from kvblock_service.access.rejected_calls import Limit

RESERVED = 64
"""Slots beyond `calls_max` that only those calls have which keep engines alive."""

_LOOKS = 4

_Task: TypeAlias = "asyncio.Task[Any]"

_arrived: ContextVar[Callable[[], object] | None] = ContextVar("kvblock.arrived", default=None)


@dataclass(eq=False)
class CallLimitReached(Exception):
    """A call that a limit ends, and the status that its client gets."""

    limit: Limit
    code: grpc.StatusCode
    text: str


class CallSlots:
    """Has `calls_max` slots, and the reserved ones; the admission takes and leaves them.

    `arriving` has the tasks of calls without a request, and when each came, in that order;
    `evicted` has the limits for which tasks were cancelled.
    """

    def __init__(self, calls_max: int, request_seconds: float) -> None:
        self.calls_max = calls_max
        self.request_seconds = request_seconds
        self.in_use = 0
        self.arriving: dict[_Task, float] = {}
        self.evicted: dict[_Task, CallLimitReached] = {}
        self.timer: asyncio.TimerHandle | None = None

    def make_room(self) -> None:
        """Evict a call that has no request yet; raises CallLimitReached when there is none."""
        text = f"concurrent_calls_max = {self.calls_max} is reached"
        full = CallLimitReached(Limit.CALLS, grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        if not self.arriving:
            raise full
        self._evict(next(iter(self.arriving)), full)

    def begin_stream(self, task: _Task) -> None:
        """Have `first_message_arrived` in this context tell of the stream that a task serves."""
        _arrived.set(partial(self.arriving.pop, task, None))

    def look_later(self) -> None:
        """Have late requests looked for; to be called when no look is due."""
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(self.request_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        """One of the regular looks: what has waited for too long is evicted."""
        self.timer = None
        before = monotonic() - self.request_seconds
        for task, since in list(self.arriving.items()):
            if since > before:
                break
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            problem = f"did not arrive within request_seconds = {self.request_seconds:g}"
            self._evict(task, CallLimitReached(Limit.REQUEST, code, f"the request {problem}"))
        if self.arriving:
            self.look_later()

    def _evict(self, task: _Task, why: CallLimitReached) -> None:
        self.arriving.pop(task, None)
        self.evicted[task] = why
        task.cancel()


def first_message_arrived() -> None:
    """The stream that runs in this context has got a message: it is not evicted any more."""
    arrived = _arrived.get()
    if arrived is not None:
        arrived()
