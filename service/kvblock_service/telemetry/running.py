"""The telemetry of one server: put together by what is wanted, and ended with the server.

Rules:
- The SDK is imported by `start`, and only where something is wanted.
"""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kvblock_service.rpc.handlers import HandlerWrapper
from kvblock_service.rpc.observe import Applied, Observer, WaitObserver
from kvblock_service.telemetry.sources import Sources
from kvblock_service.telemetry.variables import TelemetryError, Wanted, wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from kvblock_service.telemetry.durations import Durations
    from kvblock_service.telemetry.export import MetricExport, SpanExport

STOP_SECONDS_MAX = 2.0
"""Longest time that sending the last spans and metrics may take."""


class Telemetry(NamedTuple):
    """What a server needs of its telemetry.

    `metrics_address` is where Prometheus may scrape, with the port that was chosen. `trace_id`
    tells the trace of the call that runs in this task, empty where there is none. `waited` is to be
    told of allocations that have waited, by pool, in seconds; None: of none.
    """

    wrappers: tuple[HandlerWrapper, ...] = ()
    observer: Observer | None = None
    metrics_address: str | None = None
    exports: "tuple[SpanExport | MetricExport, ...]" = ()
    trace_id: Callable[[], str] = str
    waited: WaitObserver | None = None

    async def stop(self, seconds: float) -> None:
        """Send what is left, within `seconds` and at most STOP_SECONDS_MAX, and end."""
        bound = max(0.0, min(seconds, STOP_SECONDS_MAX))
        await asyncio.gather(*(export.stop(bound) for export in self.exports))


OFF = Telemetry()
"""No telemetry, at no cost."""


def start(sources: Sources, metrics_listen: str | None) -> Telemetry:
    """Set up what the `OTEL_*` variables and `metrics_listen` (HOST:PORT or None) ask for.

    Raises:
        TelemetryError: a variable cannot be followed.
        ListenError: the address to be scraped at cannot be bound.

    """
    _unset_empty_variables()
    want = wanted(os.environ, metrics_listen)
    if not (want.traces or want.metrics or want.scrape):
        return OFF
    try:
        import opentelemetry.propagate  # noqa: F401 - reads its variable when it is imported
    except ValueError as error:
        raise TelemetryError(f"OTEL_PROPAGATORS: {error}") from error
    return _start(sources, want)


def _unset_empty_variables() -> None:
    """The SDK takes an empty variable for a broken one, the specification for an unset one."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        if not os.environ[name].strip():
            del os.environ[name]


def _start(sources: Sources, want: Wanted) -> Telemetry:
    from kvblock_service.telemetry import tracing
    from kvblock_service.telemetry.calls import CallTelemetry
    from kvblock_service.telemetry.export import SpanExport, resource

    sender = resource()
    exports: list[SpanExport | MetricExport] = []
    observers: list[Observer] = []
    traced: tracing.Tracing | None = None
    durations: Durations | None = None
    address: str | None = None
    if want.metrics or want.scrape:
        measured, durations = _measured(sources, want, sender)
        address = measured.endpoint.address if measured.endpoint else None
        exports.append(measured)
        observers.append(durations.observe)
    if want.traces:
        spans = SpanExport(sender)
        traced = tracing.Tracing(spans.provider, spans.ids, want.ratio)
        exports.append(spans)
        observers.append(tracing.observe)
    return Telemetry(
        (CallTelemetry(traced, durations),),
        _one(observers),
        address,
        tuple(exports),
        tracing.trace_id if traced else str,
        durations.wait if durations else None,
    )


def _measured(
    sources: Sources, want: Wanted, sender: "Resource"
) -> "tuple[MetricExport, Durations]":
    from kvblock_service.telemetry import metrics
    from kvblock_service.telemetry.durations import Durations
    from kvblock_service.telemetry.engines import EngineSeries
    from kvblock_service.telemetry.export import MetricExport

    pools = metrics.Pools(sources.host)
    measured = MetricExport(sender, EngineSeries(pools), otlp=want.metrics, scrape=want.scrape)
    meter = metrics.meter_of(measured.provider)
    durations = Durations(meter)
    metrics.show_pools(meter, sources.host, pools, durations)
    metrics.show_turned_away(meter, sources.turned_away)
    metrics.show_log(meter, sources.log)
    if sources.files is not None:
        metrics.show_open_files(meter, sources.files)
    if sources.committer is not None:
        metrics.show_journal(meter, sources.committer)
        sources.committer.committed = durations.commit
    return measured, durations


def _one(observers: list[Observer]) -> Observer:
    if len(observers) == 1:
        return observers[0]
    first, second = observers

    def both(applied: Applied) -> None:
        first(applied)
        second(applied)

    return both
