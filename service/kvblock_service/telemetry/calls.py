"""Telemetry of calls: follows each call of kvblock's own services from its start to its end.

Rules:
- Health checks, reflection and channelz are served as without it: probes are no work of interest.
- What a call answers and raises goes through unchanged, for all four kinds of methods.
- A call is measured from its start to its end; a stream, which may last as long as its engine, is
  only counted. One whose client goes away while it is being read ends like one that is closed:
  gRPC tells its handler nothing else.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from kvblock_service.rpc.handlers import Behaviour, Handler, HandlerWrapper, wrapped
from kvblock_service.telemetry import names
from kvblock_service.telemetry.durations import NO_CONTEXT, Durations
from kvblock_service.telemetry.tracing import Tracing

_OWN_SERVICES = "/kvblock.v1."

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallTelemetry(HandlerWrapper):
    """Traces calls, measures them, or both."""

    def __init__(self, tracing: Tracing | None, durations: Durations | None) -> None:
        self._tracing = tracing
        self._durations = durations

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler, followed, if it is of kvblock's own services."""
        if not method.startswith(_OWN_SERVICES):
            return handler
        stream = handler.request_streaming or handler.response_streaming
        follow = self._following(method[1:], stream=stream)
        inner_of = _generating if handler.response_streaming else _answering
        wrapper: Handler = wrapped(handler, lambda inner: inner_of(inner, follow))
        return wrapper

    def _following(self, method: str, *, stream: bool) -> "_Follow":
        """What begins to follow a call, and gives what is to be told of its end."""
        durations = self._durations
        attributes = names.method_attributes(method)
        begin = None
        if self._tracing is not None:
            begin = self._tracing.begin_stream if stream else self._tracing.begin_call

        def follow(context: Context) -> "_End":
            started = time.perf_counter()
            call = begin(method, attributes, context.invocation_metadata() or ()) if begin else None

            def end(error: BaseException | None) -> None:
                code = grpc.StatusCode.OK if error is None else _code(context, error)
                if durations is not None and stream:
                    durations.stream(method, code)
                elif durations is not None:
                    span = NO_CONTEXT if call is None else call.context
                    durations.call(method, code, time.perf_counter() - started, span)
                if call is not None:
                    call.end(code, "" if error is None else context.details())

            return end

        return follow


_End: TypeAlias = Callable[[BaseException | None], None]
_Follow: TypeAlias = Callable[[Context], _End]


def _answering(inner: Behaviour, follow: _Follow) -> Behaviour:
    """A coroutine function, around one: its call answers, or writes to its context."""

    async def followed(request: Any, context: Context) -> Any:
        end = follow(context)
        try:
            answer = await inner(request, context)
        except BaseException as error:
            end(error)
            raise
        end(None)
        return answer

    return followed


def _generating(inner: Behaviour, follow: _Follow) -> Behaviour:
    """Around the behaviour of a method that answers a stream, in either of the two forms."""
    if not inspect.isasyncgenfunction(inner):
        return _answering(inner, follow)

    async def followed(request: Any, context: Context) -> AsyncIterator[Any]:
        end = follow(context)
        try:
            async with aclosing(inner(request, context)) as answers:
                async for answer in answers:
                    yield answer
        except BaseException as error:
            end(error)
            raise
        end(None)

    return followed


def _code(context: Context, error: BaseException) -> grpc.StatusCode:
    """The status of a call whose handler raised, or was left by gRPC in the midst of its stream."""
    code = context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return code
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        expired = context.time_remaining() == 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
    return grpc.StatusCode.UNKNOWN
