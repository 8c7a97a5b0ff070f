"""An OTLP collector inside a test: takes spans and metrics over a real socket and keeps them."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any, NamedTuple

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


class ReceivedSpan(NamedTuple):
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    is_error: bool
    status_text: str
    seconds: float
    service: str


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


class Receiver(
    trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer
):
    """`endpoint` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[ReceivedSpan] = []
        self.metrics: dict[str, Metric] = {}
        self.answers = Event()
        self.answers.set()
        self.called = Event()

    @property
    def env(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint}

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReceivedSpan:
        (span,) = self.named(name)
        return span

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The last value of each series of a metric; of a histogram, the whole point."""
        metric = self.metrics[name]
        data = getattr(metric, str(metric.WhichOneof("data")))
        return {
            frozenset(attributes_of(point.attributes).items()): (
                point if metric.HasField("histogram") else point.as_int
            )
            for point in data.data_points
        }

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.called.set()
        while not self.answers.wait(0.05):
            if not context.is_active():
                break
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self._take_spans(request)
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics.update({metric.name: metric for metric in scope.metrics})
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = attributes_of(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [
                    ReceivedSpan(
                        span.name,
                        span.kind,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        attributes_of(span.attributes),
                        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        span.status.message,
                        (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        service,
                    )
                    for span in scope.spans
                ]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(4))
    traces: Any = trace_service_pb2_grpc
    traces.add_TraceServiceServicer_to_server(receiver, server)
    metrics: Any = metrics_service_pb2_grpc
    metrics.add_MetricsServiceServicer_to_server(receiver, server)
    receiver.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None).wait()
