"""The room that calls take up: how many are served at once, and who gives way when it is full.

Rules:
- A call counts from the moment when it is let in until its handler ends. One that is turned away
  never counts.
- Until the request of a call has arrived, or the first message of its stream, the call may be cut
  off: after `request_seconds`, or at once when the room is full and another call comes. The one
  that has waited longest gives way. So calls without a request cannot keep others out.
- Renewals and health checks, which are short and keep engines alive, have SPARE places more than
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

SPARE = 64
"""Places beyond `calls_max` that only those calls have which keep engines alive."""

_LOOKS = 4

_place: ContextVar["Place | None"] = ContextVar("kvblock.place", default=None)


class TurnedOut(Exception):
    """A call that a limit ends, and the status that its client is told."""

    def __init__(self, limit: Limit, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.limit = limit
        self.code = code
        self.text = text


class Room:
    """Has `calls_max` places, and the spare ones."""

    def __init__(self, calls_max: int, request_seconds: float) -> None:
        self.calls_max = calls_max
        self.request_seconds = request_seconds
        self.taken = 0
        # In the order in which they came.
        self._arriving: dict[Place, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def place(self, *, spare: bool) -> "Place":
        """A place for the call that runs in this task; `spare`: it may have a spare one.

        Raises:
            TurnedOut: there is none.

        """
        places = self.calls_max + SPARE if spare else self.calls_max
        if self.taken >= places and not self._give_way():
            raise self._full()
        return Place(self)

    def wait_for(self, place: "Place") -> None:
        """The first message of a call is waited for."""
        self._arriving[place] = None
        if self._timer is None:
            self._look_later()

    def arrived(self, place: "Place") -> None:
        """It is there, or is waited for no more."""
        self._arriving.pop(place, None)

    def _give_way(self) -> bool:
        """Cut off the call that has waited longest for its request, if one does."""
        oldest = next(iter(self._arriving), None)
        if oldest is None:
            return False
        self._cut_off(oldest, self._full())
        return True

    def _full(self) -> TurnedOut:
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        return TurnedOut(Limit.CALLS, code, f"concurrent_calls_max = {self.calls_max} is reached")

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.request_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        """One of the regular looks: what has waited for too long is cut off."""
        self._timer = None
        before = asyncio.get_running_loop().time() - self.request_seconds
        for place in list(self._arriving):
            if place.since > before:
                break
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            problem = f"did not arrive within request_seconds = {self.request_seconds:g}"
            self._cut_off(place, TurnedOut(Limit.REQUEST, code, f"the request {problem}"))
        if self._arriving:
            self._look_later()

    def _cut_off(self, place: "Place", why: TurnedOut) -> None:
        self.arrived(place)
        place.cut_off = why
        place.task.cancel()


class Place:
    """One call's place; to be entered by the task that serves the call.

    A call that is cut off leaves it with TurnedOut.
    """

    __slots__ = ("_room", "cut_off", "since", "task")

    def __init__(self, room: Room) -> None:
        self._room = room
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task
        self.since = asyncio.get_running_loop().time()
        self.cut_off: TurnedOut | None = None

    def __enter__(self) -> "Place":
        self._room.taken += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._room.taken -= 1
        self._room.arrived(self)
        if self.cut_off is not None and isinstance(error, asyncio.CancelledError):
            raise self.cut_off from None

    async def request(self, read: Awaitable[ResultT]) -> ResultT:
        """The request of a call, which may be cut off while it is waited for."""
        self._room.wait_for(self)
        data = await read
        self._room.arrived(self)
        return data

    def begin_stream(self) -> None:
        """The first message of a stream is waited for, until `first_message_arrived`."""
        self._room.wait_for(self)
        _place.set(self)

    def arrived(self) -> None:
        """The first message of a stream is there."""
        self._room.arrived(self)


def first_message_arrived() -> None:
    """The stream that runs in this task has got a message: it need not give way any more."""
    place = _place.get()
    if place is not None:
        place.arrived()
