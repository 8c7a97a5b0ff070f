"""The telemetry of one server: put together by what is wanted, and ended with the server.

Rules:
- The SDK is imported by `start`, and only where something is wanted.
"""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kvblock_service.rpc.handlers import Wrap
from kvblock_service.rpc.observe import AppliedCommand, Observer, WaitObserver
from kvblock_service.telemetry.sources import Sources
from kvblock_service.telemetry.variables import TelemetryError, Wanted, wanted

if TYPE_CHECKING:
    from kvblock_service.telemetry.export import MetricExport, SpanExport

STOP_SECONDS_MAX = 2.0
"""Longest time that sending the last spans and metrics may take."""


class Telemetry(NamedTuple):
    """What a server needs of its telemetry.

    `metrics_address` is where Prometheus may scrape, with the port that was chosen. `trace_id`
    tells the trace of the call that runs in this task, empty where there is none. `waited` is to
    get the allocations that have waited, by pool, in seconds; None: none of them.
    """

    wrappers: tuple[Wrap, ...] = ()
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
    from kvblock_service.telemetry.export import MetricExport, SpanExport, resource

    sender = resource()
    watch, traced, durations = OFF, None, None
    if want.metrics or want.scrape:
        measured = MetricExport(sender, sources, otlp=want.metrics, scrape=want.scrape)
        durations = measured.durations
        address = measured.endpoint.address if measured.endpoint else None
        watch = Telemetry((), durations.observe, address, (measured,), waited=durations.wait)
    if want.traces:
        spans = SpanExport(sender)
        traced = tracing.Tracing(spans.provider, spans.ids, want.ratio)
        observer = _both(watch.observer, tracing.observe) if watch.observer else tracing.observe
        exports = (*watch.exports, spans)
        watch = watch._replace(observer=observer, exports=exports, trace_id=tracing.trace_id)
    return watch._replace(wrappers=(CallTelemetry(traced, durations).wrap,))


def _both(first: Observer, second: Observer) -> Observer:
    def both(applied: AppliedCommand) -> None:
        first(applied)
        second(applied)

    return both
