"""What telemetry costs: off, with 1 % of the traces sampled, and with all of them.

Rules:
- Three servers that differ in their `OTEL_*` variables only. The two that export send traces and
  metrics over OTLP to a collector in a process of its own, which throws everything away.
- Steps in a session give the figures; unary calls are in the details.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from benchmarks import raw
from benchmarks.child import collector
from benchmarks.context import Context
from benchmarks.interleave import Comparison
from benchmarks.own_server import POOL, TELEMETRY_OFF, own_server

SIZE = 32

_RATIOS = {"1pct": "0.01", "all": "1.0"}
_OFF = "off"
_CALLS = 100
"""Calls in a slice: long enough that most of what they lead to export is sent within it."""


async def tracing(context: Context) -> None:
    """Steps with sampled traces against steps without telemetry."""
    async with AsyncExitStack() as stack:
        address = stack.enter_context(collector())
        telemetry = {_OFF: TELEMETRY_OFF} | {
            name: _variables(address, ratio) for name, ratio in _RATIOS.items()
        }
        channels = {}
        for name, variables in telemetry.items():
            server = await stack.enter_async_context(own_server(1 << 14, variables))
            channels[name] = server.channel
        plan = context.plan(12, calls=_CALLS)
        stream = await raw.compare(channels, POOL, SIZE, plan, context.part(0, 2))
        unary = await raw.compare(channels, POOL, SIZE, plan, context.part(1, 2), unary=True)
    for name, ratio in _ratios(stream).items():
        context.results.figures[f"tracing_{name}_over_off"] = ratio
    context.results.details["tracing"] = {
        "step_size": SIZE,
        "stream": stream.details(),
        "unary": unary.details() | {"over_off": _ratios(unary)},
    }


def _variables(collector: str, ratio: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


def _ratios(found: Comparison) -> dict[str, float]:
    return {name: round(found.ratio(name, _OFF), 3) for name in _RATIOS}
