"""Traces and metrics of a server, on OpenTelemetry.

Rules:
- The standard `OTEL_*` variables say what is exported and where; an exporter exists only where
  `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` or an `OTEL_EXPORTER_OTLP_*ENDPOINT` asks for it.
- Where nothing is asked for there is no wrapped handler, no observer and no import of the SDK.
- A collector that cannot be reached delays neither the start nor a call, and the end only by the
  time that `Telemetry.stop` is given.
"""

from kvblock_service.telemetry.running import OFF, Telemetry, start
from kvblock_service.telemetry.sources import Sources
from kvblock_service.telemetry.variables import TelemetryError

__all__ = ["OFF", "Sources", "Telemetry", "TelemetryError", "start"]
