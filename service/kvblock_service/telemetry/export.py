"""The SDK's providers and exporters, made by the `OTEL_*` variables, and how they end.

Rules:
- Nothing global is set: the providers belong to the server that made them.
- An end is bounded: what could not be sent in time is dropped with a line in the log.
"""

import asyncio
import time

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, ProcessCollector

from kvblock.version import VERSION
from kvblock_service.telemetry import metrics, names
from kvblock_service.telemetry.durations import Durations
from kvblock_service.telemetry.engines import EngineSeries, ScrapedReader, SendingReader
from kvblock_service.telemetry.scrape import ScrapeEndpoint
from kvblock_service.telemetry.sources import Sources
from kvblock_service.telemetry.tracing import PresetIds


def resource() -> Resource:
    """Who sends: service.name is `kvblock` unless the variables name another."""
    named = OTELResourceDetector().detect().attributes
    own = {"service.name": "kvblock", "service.version": VERSION}
    return Resource.create({**own, **named})


class SpanExport:
    """Spans in batches over OTLP. `ids` makes their trace ids."""

    def __init__(self, sender: Resource) -> None:
        self.ids = PresetIds()
        self.provider = TracerProvider(
            resource=sender, id_generator=self.ids, shutdown_on_exit=False
        )
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        self.provider.add_span_processor(self._processor)

    async def stop(self, seconds: float) -> None:
        """Send what is left, if that takes no longer than `seconds`, and end."""
        flush = asyncio.create_task(asyncio.to_thread(self._processor.force_flush))
        _, late = await asyncio.wait({flush}, timeout=seconds)
        if late:
            # Without this the SDK would go on trying, and its shutdown wait for that.
            self._exporter.shutdown()
        await flush
        await asyncio.to_thread(self._processor.shutdown)


class MetricExport:
    """Metrics: over OTLP at intervals, at a scrape endpoint, or both; `durations` is to be filled.

    A scrape also shows the figures of the process, by the names that Prometheus's clients have for
    them. Over OTLP they are left to the collector, which reads them for every process of its host.
    """

    def __init__(
        self, sender: Resource, sources: Sources, *, otlp: bool, scrape: str | None
    ) -> None:
        pools = metrics.Pools(sources.host)
        engines = EngineSeries(pools)
        self.endpoint: ScrapeEndpoint | None = None
        self._readers: list[MetricReader] = []
        if scrape is not None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            reader = ScrapedReader(engines, scope_info_enabled=False, registry=registry)
            self._readers.append(reader)
            self.endpoint = ScrapeEndpoint(scrape, registry)
        if otlp:
            self._readers.append(SendingReader(engines, OTLPMetricExporter()))
        provider = MeterProvider(self._readers, sender, shutdown_on_exit=False)
        meter = provider.get_meter(names.SCOPE, VERSION)
        self.durations = Durations(meter)
        metrics.show(meter, sources, pools, self.durations)
        if sources.committer is not None:
            sources.committer.committed = self.durations.commit

    async def stop(self, seconds: float) -> None:
        """Send a last report, if that takes no longer than `seconds`, and end."""
        deadline = time.monotonic() + seconds
        if self.endpoint is not None:
            await asyncio.to_thread(self.endpoint.close)
        for reader in self._readers:
            left = max(0.0, deadline - time.monotonic())
            await asyncio.to_thread(reader.shutdown, left * 1000)
