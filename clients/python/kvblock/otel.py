"""Client spans with OpenTelemetry: each call gets one, and the server's span becomes its child.

    import kvblock, kvblock.otel
    kvblock.connect(address, interceptors=kvblock.otel.client_interceptors())
    kvblock.connect_async(address, interceptors=kvblock.otel.aio_client_interceptors())

Rules:
- Tracing is asked for by passing the interceptors, never switched on by what happens to be
  installed or configured: a client without them does not import OpenTelemetry.
- The application owns the TracerProvider, its sampler and its exporters; the context goes to the
  server in the form that the configured propagators give it (W3C by default), sampled or not.
- A session is a span from attach to the end of its stream, another one for each stream it goes on
  in, and one for its detach; its steps are spans of the server, children of the span that is
  current where the step is made, if there is one. Renewals have none.
- Only calls of kvblock's own services are traced. What a call answers and raises is unchanged.
- No span is made current: a call has no children in the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from grpc import aio

from kvblock.extras import install_hint
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.version import VERSION

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError(f"kvblock.otel needs OpenTelemetry: {install_hint('otel')}") from error

_OWN_SERVICES = "/kvblock.v1."
_REASON_PREFIX = "REFUSAL_REASON_"

_Value: TypeAlias = str | int


def client_interceptors(
    tracer_provider: TracerProvider | None = None,
) -> tuple[grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor]:
    """Interceptors for `kvblock.connect`; without a provider, the global one is used."""
    return _Unary(tracer_provider), _Stream(tracer_provider)


def aio_client_interceptors(
    tracer_provider: TracerProvider | None = None,
) -> tuple[aio.UnaryUnaryClientInterceptor, aio.StreamStreamClientInterceptor]:
    """Interceptors for `kvblock.connect_async`; without a provider, the global one is used."""
    return _AioUnary(tracer_provider), _AioStream(tracer_provider)


@dataclass(frozen=True)
class _CallDetails(grpc.ClientCallDetails):
    """What gRPC's synchronous channel takes from an interceptor."""

    method: str
    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Spans:
    """Makes the spans of an interceptor's calls."""

    _of_asyncio = False

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("kvblock", VERSION, provider)

    def _start(self, details: Any, request: object = None) -> tuple[Span | None, Any]:
        """A span for a call, and the call's details with the span's context in the metadata.

        A call of another's service has no span, and goes on with the details that it has.
        """
        method: Any = details.method
        name: str = method.decode() if isinstance(method, bytes) else method
        if not name.startswith(_OWN_SERVICES):
            return None, details
        name = name.removeprefix("/")
        attributes: dict[str, _Value] = {"rpc.system.name": "grpc", "rpc.method": name}
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        if span.is_recording():
            span.set_attributes(_asked(request))
        context: dict[str, str] = {}
        propagate.inject(context, trace.set_span_in_context(span))
        metadata = (*(details.metadata or ()), *context.items())
        last = details.credentials, details.wait_for_ready
        if self._of_asyncio:
            fields = method, details.timeout, aio.Metadata(*metadata), *last
            return span, aio.ClientCallDetails(*fields)
        return span, _CallDetails(method, details.timeout, metadata, *last, details.compression)


class _StreamSpans(_Spans):
    """Is also what `kvblock.step_context` looks for."""

    @staticmethod
    def traceparent() -> str:
        """The context of the current span, if the configured propagators give the W3C's form."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier.get("traceparent", "")


class _Unary(_Spans, grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        span, details = self._start(client_call_details, request)
        if span is None:
            return continuation(details, request)

        def done(call: Any) -> None:
            code = call.code()
            answer = call.result() if code is grpc.StatusCode.OK else None
            _end(span, code, call.details(), answer)

        try:
            call = continuation(details, request)
        except BaseException:
            _end(span, grpc.StatusCode.CANCELLED, "interrupted")
            raise
        call.add_done_callback(done)
        return call


class _Stream(_StreamSpans, grpc.StreamStreamClientInterceptor):
    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        span, details = self._start(client_call_details)
        call = continuation(details, request_iterator)
        if span is not None:
            call.add_done_callback(lambda done: _end(span, done.code(), done.details()))
        return call


class _AioUnary(_Spans, aio.UnaryUnaryClientInterceptor):
    _of_asyncio = True

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        span, details = self._start(client_call_details, request)
        if span is None:
            return await continuation(details, request)
        try:
            call = await continuation(details, request)
            answer = await call
        except asyncio.CancelledError:
            _end(span, grpc.StatusCode.CANCELLED, "")
            raise
        except aio.AioRpcError as error:
            _end(span, error.code(), error.details())
            raise
        _end(span, grpc.StatusCode.OK, "", answer)
        return call


class _AioStream(_StreamSpans, aio.StreamStreamClientInterceptor):
    _of_asyncio = True

    def __init__(self, provider: TracerProvider | None) -> None:
        super().__init__(provider)
        # The loop itself keeps no more than weak references to its tasks.
        self._watching: set[asyncio.Task[None]] = set()

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        span, details = self._start(client_call_details)
        call = await continuation(details, request_iterator)
        if span is not None:
            watch = asyncio.create_task(_end_with(call, span))
            self._watching.add(watch)
            watch.add_done_callback(self._watching.discard)
        return call


async def _end_with(call: Any, span: Span) -> None:
    """End a span when its call ends, or when the loop does."""
    code, details = grpc.StatusCode.CANCELLED, ""
    try:
        code = await call.code()
        details = await call.details()
    finally:
        _end(span, code, details)


def _asked(request: object) -> dict[str, _Value]:
    attributes: dict[str, _Value] = {}
    for field in ("pool", "engine"):
        if value := getattr(request, field, ""):
            attributes[f"kvblock.{field}"] = value
    if isinstance(request, pb.AllocateRequest):
        attributes["kvblock.blocks.asked"] = (
            request.num_blocks if request.HasField("num_blocks") else 1
        )
    elif isinstance(request, pb.StepRequest):
        step = request.step
        asked = sum(step.allocate_num_blocks) or len(step.allocate_sequence_ids)
        attributes["kvblock.blocks.asked"] = asked
    return attributes


def _answered(answer: object) -> dict[str, _Value]:
    refusal: pb.Refusal | None = None
    attributes: dict[str, _Value] = {}
    if isinstance(answer, pb.AllocateResponse):
        attributes["kvblock.blocks.granted"] = len(answer.granted.block_numbers)
        refusal = answer.refused if answer.HasField("refused") else None
    elif isinstance(answer, pb.StepResponse):
        result = answer.result
        attributes["kvblock.blocks.granted"] = len(result.block_numbers)
        attributes["kvblock.blocks.freed"] = sum(result.freed_counts)
        refusal = result.refusal if result.HasField("refusal") else None
    elif isinstance(answer, pb.FreeReturningCountResponse):
        attributes["kvblock.blocks.freed"] = answer.freed_blocks
    if refusal is not None:
        # A newer server may know more reasons.
        names = pb.RefusalReason.DESCRIPTOR.values_by_number
        name = names[refusal.reason].name if refusal.reason in names else str(refusal.reason)
        attributes["kvblock.refusal.reason"] = name.removeprefix(_REASON_PREFIX)
    return attributes


def _end(
    span: Span, code: grpc.StatusCode, details: str | None, answer: object | None = None
) -> None:
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code.name)
        if code is not grpc.StatusCode.OK:
            span.set_attribute("error.type", code.name)
            span.set_status(Status(StatusCode.ERROR, details))
        elif answer is not None:
            span.set_attributes(_answered(answer))
        span.end()
