"""Admission of calls: every method of every service, before anything of a request is read.

Rules:
- Who is calling is settled by what comes with the call. A caller that nobody knows is answered at
  once: nothing of its request is read, unpacked or kept, and it takes no slot.
- Health checks are open to all who can connect; reflection, channelz and whatever else is served
  beside kvblock's own services take an admin.
- Then the call takes a slot, and only then its request is read.
- Methods whose request is one message are served to gRPC as streams of one: gRPC reads the message
  of others before it asks anybody. On the wire there is no difference.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from kvblock_service.access.failures import LimitsReached
from kvblock_service.errors import CallError
from kvblock_service.rpc import calls
from kvblock_service.rpc.call_slots import (
    CallLimitReached,
    CallSlot,
    CallSlots,
    first_message_arrived,
)
from kvblock_service.rpc.calls import Admit, Context
from kvblock_service.rpc.gate import Gate
from kvblock_service.rpc.handlers import Handler, WrappingInterceptor

OWN_SERVICES = "/kvblock.v1."
SESSION = "/kvblock.v1.KVBlockService/Session"
HEALTH = "/grpc.health.v1.Health/"
KEEP_ALIVE = frozenset({"/kvblock.v1.KVBlockService/RenewLease", f"{HEALTH}Check"})
"""Short calls that engines, and those who watch the server, cannot do without."""

_Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]


class AdmissionInterceptor(WrappingInterceptor):
    """Lets calls in, of those whom `gate` knows, or of everybody where there is none."""

    def __init__(self, slots: CallSlots, gate: Gate | None, reached: LimitsReached) -> None:
        super().__init__()
        self._slots = slots
        self._gate = gate
        self._reached = reached

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler behind the admission of its method."""
        coders = (handler.request_deserializer, handler.response_serializer)
        entered = self._entered(method)
        behaviour: Any
        if handler.response_streaming:
            inner = handler.stream_stream or handler.unary_stream
            behaviour = self._streaming(inner, entered, takes_stream=handler.request_streaming)
            return grpc.stream_stream_rpc_method_handler(behaviour, *coders)
        assert not handler.request_streaming, f"{method}: a stream with one answer is not served"
        behaviour = self._unary(handler.unary_unary, entered)
        return grpc.stream_unary_rpc_method_handler(behaviour, *coders)

    def _entered(self, method: str) -> Callable[[Context], CallSlot]:
        """What lets a call of a method in; it raises CallErrors and CallLimitReached."""
        admit = self._admission(method)
        reserved = method in KEEP_ALIVE

        def enter(context: Context) -> CallSlot:
            if admit is not None:
                calls.admitted.set(admit(context))
            return self._slots.acquire(reserved=reserved)

        return enter

    def _admission(self, method: str) -> Admit | None:
        """What a caller has to show; None: nothing, or the handler asks for it."""
        gate = self._gate
        if gate is None or method == SESSION or method.startswith(HEALTH):
            return None
        if method.startswith(OWN_SERVICES):
            return gate.admit(method.rpartition("/")[2])
        return gate.admit_admin(method[1:])

    def _unary(self, inner: Any, entered: Callable[[Context], CallSlot]) -> _Behaviour:
        async def behaviour(_: object, context: Context) -> Any:
            try:
                with entered(context) as slot:
                    return await inner(await _only_request(slot, context), context)
            except CallError as error:
                await calls.refuse(context, error)
            except CallLimitReached as limit:
                await self._refuse_over_limit(context, limit)

        return behaviour

    def _streaming(
        self, inner: Any, entered: Callable[[Context], CallSlot], *, takes_stream: bool
    ) -> _Behaviour:
        answer = _answers if inspect.isasyncgenfunction(inner) else _awaits

        async def behaviour(requests: AsyncIterator[Any], context: Context) -> None:
            try:
                with entered(context) as slot:
                    if takes_stream:
                        slot.begin_stream()
                        await answer(inner, _noted(requests), context)
                    else:
                        await answer(inner, await _only_request(slot, context), context)
            except CallError as error:
                await calls.refuse(context, error)
            except CallLimitReached as limit:
                await self._refuse_over_limit(context, limit)

        return behaviour

    async def _refuse_over_limit(self, context: Context, limit: CallLimitReached) -> None:
        self._reached.count(limit.limit, context.peer())
        await context.abort(limit.code, limit.text)


async def _only_request(slot: CallSlot, context: Context) -> Any:
    request: Any = await slot.request(context.read())
    if request is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the call ended without a request")
    return request


async def _noted(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        first_message_arrived()
        yield request


async def _answers(inner: Any, request: Any, context: Context) -> None:
    async with aclosing(inner(request, context)) as answers:
        async for answer in answers:
            await context.write(answer)


async def _awaits(inner: Any, request: Any, context: Context) -> None:
    await inner(request, context)
