"""Metrics: how long calls and steps took, and what the pools hold.

Rules:
- Durations are recorded once the answer is on its way, with attributes that were built before.
- Pools are read from their hosts each time metrics are collected, by the thread that collects: what
  is shown cannot drift from what is there.
- free and held of a pool are read at one moment.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from importlib.metadata import version

import grpc
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider

from kvblock_service.host import Host
from kvblock_service.pool_host import PoolState
from kvblock_service.rpc.observe import Applied
from kvblock_service.telemetry import names

_CALL_SECONDS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0),
)
_STEP_SECONDS = (
    *(0.00001, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)

_Row = tuple[float, dict[str, str]]


class Durations:
    """The histograms of calls and of steps in sessions; to be used in the event loop."""

    def __init__(self, provider: MeterProvider) -> None:
        # The SDK takes longer to record a duration than the core to carry out a small step. What is
        # called soon runs after the answer was sent, in the context of the call.
        self._soon = asyncio.get_running_loop().call_soon
        meter = meter_of(provider)
        self._calls = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Time from the start of a call's handler to its end, by method and status.",
            explicit_bucket_boundaries_advisory=_CALL_SECONDS,
        )
        self._steps = meter.create_histogram(
            "kvblock.step.duration",
            unit="s",
            description="Time to carry out one step of a session, without reading and writing it.",
            explicit_bucket_boundaries_advisory=_STEP_SECONDS,
        )
        self._call_attributes: dict[tuple[str, grpc.StatusCode], dict[str, str]] = {}

    def call(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """A call has ended."""
        attributes = self._call_attributes.get((method, code))
        if attributes is None:
            attributes = names.method_attributes(method) | names.status_attributes(code)
            self._call_attributes[method, code] = attributes
        self._soon(self._calls.record, seconds, attributes)

    def observe(self, applied: Applied) -> None:
        """A command was carried out."""
        if applied.step_id:
            # The wall clock may have been set back meanwhile.
            seconds = max(0, time.time_ns() - applied.started_ns) / 1e9
            self._soon(self._steps.record, seconds)


def meter_of(provider: MeterProvider) -> Meter:
    """The meter of this package."""
    return provider.get_meter(names.SCOPE, version("kvblock"))


def show_pools(meter: Meter, host: Host) -> None:
    """Let the pools of a host be read by the meter's readers."""

    def by_pool(rows: Callable[[PoolState], Iterable[_Row]]) -> "list[_Callback]":
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for name, pool in host.pools.items():
                for value, attributes in rows(pool.state()):
                    yield Observation(value, {"pool": name, **attributes})

        return [callback]

    def sessions(_: CallbackOptions) -> Iterable[Observation]:
        # The copy is made at once; the loop's thread may change the original meanwhile.
        attached = Counter(pool for pool, _ in tuple(host.sessions))
        return [Observation(attached[name], {"pool": name}) for name in host.pools]

    def totals(_: CallbackOptions) -> Iterable[Observation]:
        for name, pool in host.pools.items():
            yield Observation(pool.geometry.total_blocks, {"pool": name})

    gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
    gauge("kvblock.pool.blocks", by_pool(_blocks), "{block}", "Blocks by state: free or held.")
    gauge("kvblock.pool.total", [totals], "{block}", "Blocks in the pool.")
    gauge(
        "kvblock.pool.sequences",
        by_pool(lambda state: [(state.sequences, {})]),
        "{sequence}",
        "Sequences that have a block table.",
    )
    gauge(
        "kvblock.pool.waiting",
        by_pool(lambda state: [(state.waiting, {})]),
        "{call}",
        "Allocate calls that wait for blocks.",
    )
    gauge("kvblock.sessions", [sessions], "{session}", "Sessions that are attached.")
    counter("kvblock.refusals", by_pool(_refusals), "{refusal}", "Refused allocations, by reason.")
    counter(
        "kvblock.blocks.allocated",
        by_pool(lambda state: [(state.allocated_total, {})]),
        "{block}",
        "Blocks granted.",
    )
    counter(
        "kvblock.blocks.freed",
        by_pool(lambda state: [(state.freed_total, {})]),
        "{block}",
        "Blocks returned.",
    )


_Callback = Callable[[CallbackOptions], Iterable[Observation]]


def _blocks(state: PoolState) -> list[_Row]:
    return [(state.free_blocks, {"state": "free"}), (state.held_blocks, {"state": "held"})]


def _refusals(state: PoolState) -> list[_Row]:
    return [(count, {"reason": reason.name}) for reason, count in state.refused_total.items()]
