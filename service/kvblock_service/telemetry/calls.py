"""Telemetry of calls: follows each call of kvblock's own services from its start to its end.

Rules:
- Health checks, reflection and channelz are served as without it: probes are not work of interest.
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

from kvblock_service.rpc.admission import OWN_SERVICES
from kvblock_service.rpc.handlers import Behaviour, Handler
from kvblock_service.telemetry import names
from kvblock_service.telemetry.durations import NO_CONTEXT, Durations
from kvblock_service.telemetry.tracing import Tracing

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class CallTelemetry:
    """Traces calls, measures them, or both."""

    def __init__(self, tracing: Tracing | None, durations: Durations | None) -> None:
        self._tracing = tracing
        self._durations = durations

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler, followed, if it is of kvblock's own services."""
        if not method.startswith(OWN_SERVICES):
            return handler
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        inner = getattr(handler, kind)
        follow = self._following(method[1:], stream=kind != "unary_unary")
        around = _generating if inspect.isasyncgenfunction(inner) else _answering
        followed: Any = handler
        return followed._replace(**{kind: around(inner, follow)})  # type: ignore[no-any-return]

    def _following(self, method: str, *, stream: bool) -> "_Follow":
        """What begins to follow a call, and gives what is called with the error at its end."""
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
    """Around a coroutine function, which answers or writes to its context."""

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
    """Around an async generator, which yields its answers."""

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
