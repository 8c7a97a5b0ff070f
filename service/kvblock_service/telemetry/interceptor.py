"""The server interceptor: follows each call of kvblock's own services from its start to its end.

Rules:
- Health checks, reflection and channelz are served as without it: probes are no work of interest.
- Handlers are wrapped once, at their first call.
- What a call answers and raises goes through unchanged.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from kvblock_service.telemetry import names
from kvblock_service.telemetry.metrics import NO_CONTEXT, Durations
from kvblock_service.telemetry.tracing import TracedCall, Tracing

_OWN_SERVICES = "/kvblock.v1."

_Behaviour: TypeAlias = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Awaitable[Any]]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Traces calls, measures them, or both."""

    def __init__(self, tracing: Tracing | None, durations: Durations | None) -> None:
        self._tracing = tracing
        self._durations = durations
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[_Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """The handler of a method, wrapped; None for a method that is unknown."""
        method = handler_call_details.method
        handler = self._wrapped.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is not None and method.startswith(_OWN_SERVICES):
                handler = self._wrapped[method] = self._wrap(method[1:], handler)
        return handler

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        stream = handler.response_streaming
        # The types of handlers know synchronous behaviours only.
        inner: Any = handler.stream_stream if stream else handler.unary_unary
        outer: Any = self._followed(method, inner, stream=stream)
        make = (
            grpc.stream_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
        )
        return make(outer, handler.request_deserializer, handler.response_serializer)

    def _followed(self, method: str, behaviour: _Behaviour, *, stream: bool) -> _Behaviour:
        durations = self._durations
        attributes = names.method_attributes(method)
        begin = None
        if self._tracing is not None:
            begin = self._tracing.begin_stream if stream else self._tracing.begin_call

        def end(
            call: TracedCall | None, code: grpc.StatusCode, started: float, details: str = ""
        ) -> None:
            if durations is not None:
                context = NO_CONTEXT if call is None else call.context
                durations.call(method, code, time.perf_counter() - started, context)
            if call is not None:
                call.end(code, details)

        async def followed(request: Any, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
            started = time.perf_counter()
            call = begin(method, attributes, context.invocation_metadata() or ()) if begin else None
            try:
                answer = await behaviour(request, context)
            except BaseException as error:
                end(call, _code(context, error), started, context.details())
                raise
            end(call, grpc.StatusCode.OK, started)
            return answer

        return followed


def _code(context: "grpc.aio.ServicerContext[Any, Any]", error: BaseException) -> grpc.StatusCode:
    """The status of a call whose handler raised."""
    code = context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return code
    if isinstance(error, asyncio.CancelledError):
        expired = context.time_remaining() == 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
    return grpc.StatusCode.UNKNOWN
