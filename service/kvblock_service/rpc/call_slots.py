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
from collections.abc import Awaitable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TypeVar

import grpc

from kvblock_service.access.failures import Limit

ResultT = TypeVar("ResultT")

RESERVED = 64
"""Slots beyond `calls_max` that only those calls have which keep engines alive."""

_LOOKS = 4

_slot: ContextVar["CallSlot | None"] = ContextVar("kvblock.slot", default=None)


class CallLimitReached(Exception):
    """A call that a limit ends, and the status that its client is told."""

    def __init__(self, limit: Limit, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.limit = limit
        self.code = code
        self.text = text


class CallSlots:
    """Has `calls_max` slots, and the reserved ones."""

    def __init__(self, calls_max: int, request_seconds: float) -> None:
        self.calls_max = calls_max
        self.request_seconds = request_seconds
        self.in_use = 0
        # In the order in which they came.
        self._arriving: dict[CallSlot, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def acquire(self, *, reserved: bool) -> "CallSlot":
        """A slot for the call that runs in this task; `reserved`: it may have a reserved one.

        Raises:
            CallLimitReached: there is none.

        """
        slots_max = self.calls_max + RESERVED if reserved else self.calls_max
        if self.in_use >= slots_max and not self._evict_oldest():
            raise self._full()
        return CallSlot(self)

    def wait_for(self, slot: "CallSlot") -> None:
        """The first message of a call is waited for."""
        self._arriving[slot] = None
        if self._timer is None:
            self._look_later()

    def arrived(self, slot: "CallSlot") -> None:
        """It is there, or is waited for no more."""
        self._arriving.pop(slot, None)

    def _evict_oldest(self) -> bool:
        """Evict the call that has waited longest for its request, if one does."""
        oldest = next(iter(self._arriving), None)
        if oldest is None:
            return False
        self._evict(oldest, self._full())
        return True

    def _full(self) -> CallLimitReached:
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        text = f"concurrent_calls_max = {self.calls_max} is reached"
        return CallLimitReached(Limit.CALLS, code, text)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.request_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        """One of the regular looks: what has waited for too long is evicted."""
        self._timer = None
        before = asyncio.get_running_loop().time() - self.request_seconds
        for slot in list(self._arriving):
            if slot.since > before:
                break
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            problem = f"did not arrive within request_seconds = {self.request_seconds:g}"
            self._evict(slot, CallLimitReached(Limit.REQUEST, code, f"the request {problem}"))
        if self._arriving:
            self._look_later()

    def _evict(self, slot: "CallSlot", why: CallLimitReached) -> None:
        self.arrived(slot)
        slot.evicted = why
        slot.task.cancel()


class CallSlot:
    """One call's slot; to be entered by the task that serves the call.

    A call that is evicted leaves it with CallLimitReached.
    """

    __slots__ = ("_slots", "evicted", "since", "task")

    def __init__(self, slots: CallSlots) -> None:
        self._slots = slots
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self.since = asyncio.get_running_loop().time()
        self.evicted: CallLimitReached | None = None

    def __enter__(self) -> "CallSlot":
        self._slots.in_use += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._slots.in_use -= 1
        self._slots.arrived(self)
        if self.evicted is not None and isinstance(error, asyncio.CancelledError):
            raise self.evicted from None

    async def request(self, read: Awaitable[ResultT]) -> ResultT:
        """The request of a call, which may be evicted while it is waited for."""
        self._slots.wait_for(self)
        data = await read
        self._slots.arrived(self)
        return data

    def begin_stream(self) -> None:
        """The first message of a stream is waited for, until `first_message_arrived`."""
        self._slots.wait_for(self)
        _slot.set(self)

    def arrived(self) -> None:
        """The first message of a stream is there."""
        self._slots.arrived(self)


def first_message_arrived() -> None:
    """The stream that runs in this task has got a message: it is not evicted any more."""
    slot = _slot.get()
    if slot is not None:
        slot.arrived()
