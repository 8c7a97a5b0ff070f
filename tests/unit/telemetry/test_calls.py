"""The telemetry around handlers of our own, served over a real socket."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from kvblock_service.rpc.handlers import Methods
from kvblock_service.telemetry.calls import CallTelemetry
from kvblock_service.telemetry.durations import Durations
from kvblock_service.telemetry.tracing import PresetIds, Tracing

WHO = "/kvblock.v1.Probe/Who"
FAIL = "/kvblock.v1.Probe/Fail"
OTHER = "/grpc.health.v1.Probe/Who"
PARENT = "0af7651916cd43dd8448eb211c80319c"


async def who(_: bytes, __: object) -> bytes:
    """The trace that a log line of this call would name."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id).encode()


async def fail(_: bytes, __: object) -> bytes:
    raise RuntimeError("a bug")


async def count(request: bytes, _: object) -> AsyncIterator[bytes]:
    """As many answers as the request has bytes; then a failure, if it ends in an F."""
    for number in range(len(request)):
        yield str(number).encode()
    if request.endswith(b"F"):
        raise RuntimeError("a bug")


async def write(request: bytes, context: Any) -> None:
    """The same, as gRPC's older form has it."""
    async for answer in count(request, context):
        await context.write(answer)


async def join(requests: AsyncIterator[bytes], _: object) -> bytes:
    return b"".join([request async for request in requests])


async def repeat(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def repeat_by_context(_: object, context: Any) -> None:
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


STREAMS: "dict[str, grpc.RpcMethodHandler[bytes, bytes]]" = {
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Write": grpc.unary_stream_rpc_method_handler(write),
    "Join": grpc.stream_unary_rpc_method_handler(join),
    "Repeat": grpc.stream_stream_rpc_method_handler(repeat),
    "Relay": grpc.stream_stream_rpc_method_handler(repeat_by_context),
}


@asynccontextmanager
async def probed(
    path: Path, ratio: float, durations: Durations | None = None
) -> AsyncIterator[tuple[aio.Channel, InMemorySpanExporter]]:
    ids = PresetIds()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(ParentBasedTraceIdRatio(ratio), id_generator=ids)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    served = Methods([CallTelemetry(Tracing(provider, ids, ratio), durations).wrap])
    server = aio.server()
    handlers: dict[str, Any] = {"Who": who, "Fail": fail}
    for service in ("kvblock.v1.Probe", "grpc.health.v1.Probe"):
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()
        } | STREAMS
        served.add_registered_method_handlers(service, methods)
    server.add_generic_rpc_handlers((served,))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        async with aio.insecure_channel(f"unix:{path}") as channel:
            yield channel, exporter
    finally:
        await server.stop(0)


def sampled(flag: str) -> aio.Metadata:
    return aio.Metadata(("traceparent", f"00-{PARENT}-b7ad6b7169203331-{flag}"))


def test_a_sampled_calls_span_is_current_in_its_handler_and_nowhere_else(tmp_path: Path) -> None:
    async def run() -> list[str]:
        async with probed(tmp_path / "s", 0.0) as (channel, exporter):
            call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
            answers = [await call(b"", metadata=sampled(flag)) for flag in ("01", "00")]
            answers.append(await call(b""))
            assert len(exporter.get_finished_spans()) == 1
            return [answer.decode() for answer in answers]

    assert asyncio.run(run()) == [PARENT, "0" * 32, "0" * 32]


def test_a_root_span_has_the_trace_id_that_was_decided_about(tmp_path: Path) -> None:
    async def run() -> None:
        async with probed(tmp_path / "s", 0.25) as (channel, exporter):
            call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(WHO)
            seen = {(await call(b"")).decode() for _ in range(400)} - {"0" * 32}
            spans = exporter.get_finished_spans()
            ids = {trace.format_trace_id(span.context.trace_id) for span in spans if span.context}
            assert seen == ids
            assert 60 < len(ids) == len(spans) < 150
            assert all(int(trace_id[16:], 16) < 2**62 for trace_id in ids)

    asyncio.run(run())


def test_a_bug_in_a_handler_is_an_error_of_the_span(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with probed(tmp_path / "s", 1.0) as (channel, exporter):
            call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(FAIL)
            with pytest.raises(aio.AioRpcError) as raised:
                await call(b"")
            assert raised.value.code() is grpc.StatusCode.UNKNOWN
            (span,) = exporter.get_finished_spans()
            assert span.attributes is not None
            assert span.attributes["rpc.response.status_code"] == "UNKNOWN"
            assert span.status.status_code is trace.StatusCode.ERROR

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(run())


def test_other_services_and_unknown_methods_are_left_alone(tmp_path: Path) -> None:
    async def run() -> None:
        async with probed(tmp_path / "s", 1.0) as (channel, exporter):
            call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OTHER)
            assert await call(b"", metadata=sampled("01")) == b"0" * 32
            unknown: aio.UnaryUnaryMultiCallable[bytes, bytes]
            unknown = channel.unary_unary("/kvblock.v1.Probe/Nothing")
            with pytest.raises(aio.AioRpcError) as raised:
                await unknown(b"")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert exporter.get_finished_spans() == ()

    asyncio.run(run())


def method(channel: aio.Channel, name: str) -> Any:
    """The client's side of a method, by the kind of its handler."""
    handler = STREAMS[name]
    sides = ("stream" if one else "unary" for one in (handler.request_streaming, True))
    kind = "_".join(sides) if handler.response_streaming else "stream_unary"
    return getattr(channel, kind)(f"/kvblock.v1.Probe/{name}")


async def requests() -> AsyncIterator[bytes]:
    yield b"ab"
    yield b"c"


def codes_of(exporter: InMemorySpanExporter) -> list[tuple[str, object]]:
    return [
        (span.name.rpartition("/")[2], (span.attributes or {})["rpc.response.status_code"])
        for span in exporter.get_finished_spans()
    ]


def test_every_kind_of_method_is_followed_and_answers_as_without(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()

    async def run() -> None:
        durations = Durations(MeterProvider([reader]).get_meter("test"))
        async with probed(tmp_path / "s", 1.0, durations) as (channel, exporter):
            for name in ("Count", "Write"):
                assert [one async for one in method(channel, name)(b"abc")] == [b"0", b"1", b"2"]
                with pytest.raises(aio.AioRpcError) as raised:
                    _ = [one async for one in method(channel, name)(b"F")]
                assert raised.value.code() is grpc.StatusCode.UNKNOWN
            assert await method(channel, "Join")(requests()) == b"abc"
            for name in ("Repeat", "Relay"):
                assert [one async for one in method(channel, name)(requests())] == [b"ab", b"c"]
            assert codes_of(exporter) == [
                *(("Count", "OK"), ("Count", "UNKNOWN"), ("Write", "OK"), ("Write", "UNKNOWN")),
                *(("Join", "OK"), ("Repeat", "OK"), ("Relay", "OK")),
            ]

    asyncio.run(run())
    collected = reader.get_metrics_data()
    assert collected is not None
    (metric,) = collected.resource_metrics[0].scope_metrics[0].metrics
    assert metric.name == "kvblock.streams.ended"
    assert sorted(point.value for point in metric.data.data_points) == [1] * 7  # type: ignore[union-attr]


def test_a_stream_that_its_client_leaves_ends_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with probed(tmp_path / "s", 1.0) as (channel, exporter):
            for name in ("Repeat", "Relay"):
                call = method(channel, name)()
                await call.write(b"a")
                assert await call.read() == b"a"
                call.cancel()
            many = method(channel, "Count")(b"x" * 1_000_000)
            assert await many.read() == b"0"
            many.cancel()
            other: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OTHER)
            while len(exporter.get_finished_spans()) < 3:
                await other(b"")
            codes = dict(codes_of(exporter))
            assert len(codes) == len(exporter.get_finished_spans()) == 3
            assert codes["Count"] == "CANCELLED"
            # One that was reading may have learned that there is no more to read.
            assert {codes["Relay"], codes["Repeat"]} <= {"CANCELLED", "OK"}

    asyncio.run(run())
