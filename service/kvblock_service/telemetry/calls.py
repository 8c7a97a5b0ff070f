"""Telemetry of calls: follows each call of kvblock's own services from its start to its end.

Rules:
- Health checks, reflection and channelz are served as without it: probes are not work of interest.
- A method is unary, or a stream in both directions whose handler writes to its context. What it
  answers and raises goes through unchanged.
- A call is measured from its start to its end; a stream, which may last as long as its engine, is
  only counted. One whose client goes away while it is being read ends like one that is closed:
  gRPC tells its handler nothing else.
"""

import asyncio
import inspect
import time
from typing import Any, TypeAlias

import grpc

from kvblock_service.rpc.admission import OWN_SERVICES
from kvblock_service.rpc.handlers import Behaviour, Handler
from kvblock_service.telemetry import names
from kvblock_service.telemetry.durations import NO_CONTEXT, Durations
from kvblock_service.telemetry.tracing import Tracing

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class CallTelemetry:
    """Traces calls, measures them, or both."""

    def __init__(self, tracing: Tracing | None, durations: Durations | None) -> None:
        self._tracing = tracing
        self._durations = durations

    def wrap(self, method: str, handler: Handler) -> Handler:
        """The handler, followed, if it is of kvblock's own services."""
        if not method.startswith(OWN_SERVICES):
            return handler
        kind = "stream_stream" if handler.request_streaming else "unary_unary"
        inner = getattr(handler, kind)
        assert inspect.iscoroutinefunction(inner), f"{method}: cannot be followed"
        followed: Any = handler
        wrapped = self._followed(method[1:], inner, stream=handler.request_streaming)
        return followed._replace(**{kind: wrapped})  # type: ignore[no-any-return]

    def _followed(self, method: str, inner: Behaviour, *, stream: bool) -> Behaviour:
        attributes = names.method_attributes(method)
        begin = None
        if self._tracing is not None:
            begin = self._tracing.begin_stream if stream else self._tracing.begin_call

        async def followed(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            call = begin(method, attributes, context.invocation_metadata() or ()) if begin else None
            code, details = grpc.StatusCode.OK, ""
            try:
                return await inner(request, context)
            except BaseException as error:
                code, details = _code(context, error), context.details()
                raise
            finally:
                if self._durations is not None and stream:
                    self._durations.stream(method, code)
                elif self._durations is not None:
                    span = NO_CONTEXT if call is None else call.context
                    self._durations.call(method, code, time.perf_counter() - started, span)
                if call is not None:
                    call.end(code, details)

        return followed


def _code(context: Context, error: BaseException) -> grpc.StatusCode:
    """The status of a call whose handler raised, or was cancelled by gRPC."""
    code = context.code()
    if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
        return code
    if isinstance(error, asyncio.CancelledError):
        expired = context.time_remaining() == 0
        return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
    return grpc.StatusCode.UNKNOWN
