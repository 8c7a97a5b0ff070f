"""Admission of calls: every method of every service, before anything of a request is read.

Rules:
- Who is calling is settled by what comes with the call. A caller that nobody knows is answered at
  once: nothing of its request is read, unpacked or held, and it takes no slot.
- Health checks are open to all who can connect; reflection, channelz and whatever else is served
  beside kvblock's own services take an admin.
- Then the call takes a slot, and only then its request is read.
- Methods whose request is one message are served to gRPC as streams of one: gRPC reads the message
  of others before it asks anybody. On the wire there is no difference.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import Any, NoReturn

import grpc

from kvblock_service.access.rejected_calls import Limit
from kvblock_service.call_error import CallError, Then
from kvblock_service.event_counter import EventCounter
from kvblock_service.rpc import calls
from kvblock_service.rpc.call_slots import (
    RESERVED,
    CallLimitReached,
    CallSlots,
    first_message_arrived,
)
from kvblock_service.rpc.calls import Admit, Context
from kvblock_service.rpc.gate import Gate
from kvblock_service.rpc.handlers import Behaviour, Handler

OWN_SERVICES = "/kvblock.v1."
SESSION = "/kvblock.v1.KVBlockService/Session"
HEALTH = "/grpc.health.v1.Health/"
KEEP_ALIVE = frozenset({"/kvblock.v1.KVBlockService/RenewLease", f"{HEALTH}Check"})
"""Short calls that engines, and those who watch the server, cannot do without."""

_UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
_NO_REQUEST = "the call ended without a request"


class Admission:
    """Lets calls in, of those whom `gate` knows, or of everybody where there is none."""

    def __init__(self, slots: CallSlots, gate: Gate | None, rejected: EventCounter[Limit]) -> None:
        self._slots = slots
        self._gate = gate
        self._rejected = rejected

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler behind the admission of its method."""
        coders = (handler.request_deserializer, handler.response_serializer)
        admitted: Any
        if handler.response_streaming:
            inner = handler.stream_stream or handler.unary_stream
            serve = partial(_answers, inner) if inspect.isasyncgenfunction(inner) else inner
            admitted = self._admitted(method, serve, takes_stream=handler.request_streaming)
            return grpc.stream_stream_rpc_method_handler(admitted, *coders)
        assert not handler.request_streaming, f"{method}: a stream with one answer is not served"
        admitted = self._admitted(method, handler.unary_unary, takes_stream=False)
        return grpc.stream_unary_rpc_method_handler(admitted, *coders)

    def _admission(self, method: str) -> Admit | None:
        """What a caller has to show; None: nothing, or the handler asks for it."""
        gate = self._gate
        if gate is None or method == SESSION or method.startswith(HEALTH):
            return None
        if method.startswith(OWN_SERVICES):
            return gate.admit(method.rpartition("/")[2])
        return gate.admit_admin(method[1:])

    def _admitted(self, method: str, serve: Any, *, takes_stream: bool) -> Behaviour:
        slots, admit = self._slots, self._admission(method)
        slots_max = slots.calls_max + RESERVED if method in KEEP_ALIVE else slots.calls_max
        arriving, evicted = slots.arriving, slots.evicted

        # One function, since each that it called would take every call about a microsecond more.
        async def admitted(requests: Any, context: Context) -> Any:
            task: Any = asyncio.current_task()
            try:
                if admit is not None:
                    calls.admitted.set(admit(context))
                if slots.in_use >= slots_max:
                    slots.make_room()
            except CallError as error:
                await calls.refuse(context, error)
            except CallLimitReached as limit:
                await self._refuse_over_limit(context, limit)
            slots.in_use += 1
            arriving[task] = monotonic()
            if slots.timer is None:
                slots.look_later()
            try:
                if takes_stream:
                    slots.begin_stream(task)
                    return await serve(_noted(requests), context)
                request: Any = await context.read()
                arriving.pop(task, None)
                if request is grpc.aio.EOF:
                    await calls.end(context, _UNIMPLEMENTED, _NO_REQUEST, Then.GIVE_UP)
                return await serve(request, context)
            except asyncio.CancelledError:
                why = evicted.get(task)
                if why is None:
                    raise
                await self._refuse_over_limit(context, why)
            finally:
                slots.in_use -= 1
                arriving.pop(task, None)
                if evicted:
                    evicted.pop(task, None)

        return admitted

    async def _refuse_over_limit(self, context: Context, limit: CallLimitReached) -> NoReturn:
        self._rejected.add(limit.limit, peer=context.peer())
        # Nothing of it was carried out, and a slot may be there soon.
        await calls.end(context, limit.code, limit.text, Then.REPEAT)


async def _noted(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        first_message_arrived()
        yield request


async def _answers(inner: Any, request: Any, context: Context) -> None:
    async with aclosing(inner(request, context)) as answers:
        async for answer in answers:
            await context.write(answer)
