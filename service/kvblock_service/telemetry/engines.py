"""The series of single engines, put into what a reader of the SDK has collected.

Rules:
- A series is there while its engine is: it has blocks or a lease. So there are never more than
  `engines_max` of a kind in a pool, however many engines come and go.
- The SDK's own instruments would not do: they remember every name for as long as the server runs,
  and put all that come after the first two thousand into one series.
- What is shown of an engine is of the same moment as what is shown of its pool.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    Sum,
)

from kvblock_service.core.listing import EngineState
from kvblock_service.telemetry import names
from kvblock_service.telemetry.metrics import Pools

_Value: TypeAlias = Callable[[EngineState], "float | None"]

_SERIES: tuple[tuple[str, str, str, _Value], ...] = (
    (
        "kvblock.engine.held.blocks",
        "{block}",
        "Blocks that an engine holds, in tables and acquired.",
        lambda engine: engine.held_blocks,
    ),
    (
        "kvblock.engine.acquired.blocks",
        "{block}",
        "Blocks that an engine holds outside any block table.",
        lambda engine: engine.acquired_blocks,
    ),
    (
        "kvblock.engine.sequences",
        "{sequence}",
        "Sequences of an engine that have a block table.",
        lambda engine: engine.sequences,
    ),
    (
        "kvblock.engine.want.blocks",
        "{block}",
        "Blocks that an engine lacks: wanted by its hints, refused or waited for.",
        lambda engine: engine.want_blocks,
    ),
    (
        "kvblock.engine.idle.blocks",
        "{block}",
        "Blocks that an engine could give back, by its last hints.",
        lambda engine: engine.idle_blocks,
    ),
    (
        "kvblock.engine.owed.blocks",
        "{block}",
        "Idle blocks of an engine that other engines lack.",
        lambda engine: engine.owed_blocks,
    ),
    (
        "kvblock.engine.heartbeat.age",
        "s",
        "Time since the last heartbeat of an engine that has a lease.",
        lambda engine: engine.since_heartbeat_ms / 1000 if engine.epoch else None,
    ),
    (
        "kvblock.engine.refusals",
        "{refusal}",
        "Refused allocations of an engine since its first block or lease, or since the server's"
        " start.",
        lambda engine: engine.refusals,
    ),
)
_COUNTERS = ("kvblock.engine.refusals",)


class EngineSeries:
    """Makes the metrics of the engines that `pools` has seen last."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._since = time.time_ns()

    def put_into(self, collected: MetricsData) -> None:
        """Add them to what was collected, whose lists belong to who receives it."""
        for resource in collected.resource_metrics:
            for ours in resource.scope_metrics:
                if ours.scope.name == names.SCOPE:
                    metrics: Any = ours.metrics
                    metrics.extend(self._metrics(time.time_ns()))

    def _metrics(self, now: int) -> Iterable[Metric]:
        for name, unit, text, value in _SERIES:
            points = self._points(value, now)
            data: Gauge | Sum = Gauge(points)
            if name in _COUNTERS:
                data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
            if points:
                yield Metric(name, text, unit, data)

    def _points(self, value: _Value, now: int) -> list[NumberDataPoint]:
        return [
            NumberDataPoint({"pool": pool, "engine": engine.name}, self._since, now, number)
            for pool, state in self._pools.states.items()
            for engine in state.engines
            if (number := value(engine)) is not None
        ]


class _WithEngines(MetricReader):
    """For a reader: adds the engines to what was collected."""

    def __init__(self, engines: EngineSeries, *args: Any, **kwargs: Any) -> None:
        # The first report may be on its way before the reader's own constructor returns.
        self._engines = engines
        super().__init__(*args, **kwargs)

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> None:
        self._engines.put_into(metrics_data)
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)  # type: ignore[safe-super]


class ScrapedReader(_WithEngines, PrometheusMetricReader):
    """Gives to a registry what was collected, and the engines."""


class SendingReader(_WithEngines, PeriodicExportingMetricReader):
    """Sends at intervals what was collected, and the engines."""
