"""Metrics: how long calls and steps took, and what the pools hold.

Rules:
- Durations are recorded once the answer is on its way, with attributes that were built before;
  what is collected holds all that were measured until then.
- Pools are read from their hosts each time metrics are collected, by the thread that collects: what
  is shown cannot drift from what is there.
- free, held and quarantined of a pool are read at one moment.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from importlib.metadata import version

import grpc
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider

from kvblock_service import open_files
from kvblock_service.access import TurnedAway
from kvblock_service.host import Host
from kvblock_service.open_files import OpenFiles
from kvblock_service.pool_host import PoolState
from kvblock_service.rpc.observe import Applied
from kvblock_service.telemetry import names

NO_CONTEXT = Context()
"""The context of what has no span."""

_CALL_SECONDS = (
    *(0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0),
)
_STEP_SECONDS = (
    *(0.00001, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)

_BATCH = 16

_Row = tuple[float, dict[str, str]]


class Durations:
    """The histograms of calls and of steps in sessions; filled in the event loop.

    The SDK takes longer to record a duration than the core to carry out a small step, and several
    times as long when its code has left the processor's caches. So durations are recorded a few at
    a time after an answer was sent, and those that are left when metrics are collected.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self._soon = asyncio.get_running_loop().call_soon
        self._pending: deque[tuple[Histogram, float, dict[str, str] | None, Context]] = deque()
        self._attributes: dict[tuple[str, grpc.StatusCode], dict[str, str]] = {}
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

    def call(self, method: str, code: grpc.StatusCode, seconds: float, context: Context) -> None:
        """A call has ended; `context` holds its span, if it has one."""
        attributes = self._attributes.get((method, code))
        if attributes is None:
            attributes = names.method_attributes(method) | names.status_attributes(code)
            self._attributes[method, code] = attributes
        self._keep(self._calls, seconds, attributes, context)

    def observe(self, applied: Applied) -> None:
        """A command was carried out."""
        if applied.step_id:
            # The wall clock may have been set back meanwhile.
            seconds = max(0, time.time_ns() - applied.started_ns) / 1e9
            self._keep(self._steps, seconds, None, NO_CONTEXT)

    def record(self) -> None:
        """Hand to the SDK what is pending; any thread may do so."""
        with contextlib.suppress(IndexError):
            while True:
                histogram, seconds, attributes, context = self._pending.popleft()
                histogram.record(seconds, attributes, context)

    def _keep(
        self,
        histogram: Histogram,
        seconds: float,
        attributes: dict[str, str] | None,
        context: Context,
    ) -> None:
        self._pending.append((histogram, seconds, attributes, context))
        if len(self._pending) == _BATCH:
            self._soon(self.record)


def meter_of(provider: MeterProvider) -> Meter:
    """The meter of this package."""
    return provider.get_meter(names.SCOPE, version("kvblock"))


def show_pools(meter: Meter, host: Host, durations: Durations) -> None:
    """Let the pools of a host be read by the meter's readers, and no duration be missed by them."""

    def by_pool(rows: Callable[[PoolState], Iterable[_Row]]) -> "list[_Callback]":
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for name, pool in host.pools.items():
                for value, attributes in rows(pool.state()):
                    yield Observation(value, {"pool": name, **attributes})

        return [callback]

    def sessions(_: CallbackOptions) -> Iterable[Observation]:
        # Callbacks run before the histograms are collected.
        durations.record()
        # The copy is made at once; the loop's thread may change the original meanwhile.
        attached = Counter(pool for pool, _ in tuple(host.sessions))
        return [Observation(attached[name], {"pool": name}) for name in host.pools]

    def totals(_: CallbackOptions) -> Iterable[Observation]:
        for name, pool in host.pools.items():
            yield Observation(pool.geometry.total_blocks, {"pool": name})

    gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
    gauge("kvblock.pool.total", [totals], "{block}", "Blocks in the pool.")
    gauge("kvblock.sessions", [sessions], "{session}", "Sessions that are attached.")
    for name, rows, unit, text in _GAUGES:
        gauge(name, by_pool(rows), unit, text)
    for name, rows, unit, text in _COUNTERS:
        counter(name, by_pool(rows), unit, text)


def show_turned_away(meter: Meter, turned_away: TurnedAway) -> None:
    """Let the meter's readers read who was turned away; each reason is there from the start."""

    def by_reason(counts: Iterable[tuple[Enum, int]]) -> Iterable[Observation]:
        return [Observation(count, {"reason": reason.name}) for reason, count in counts]

    meter.create_observable_counter(
        "kvblock.login.failures",
        [lambda _: by_reason(turned_away.logins.counts.items())],
        "{login}",
        "Failed logins, by reason.",
    )
    meter.create_observable_counter(
        "kvblock.permission.denials",
        [lambda _: by_reason(turned_away.denials.counts.items())],
        "{call}",
        "Denied permissions, by reason.",
    )
    meter.create_observable_counter(
        "kvblock.calls.turned_away",
        [lambda _: by_reason(turned_away.limits.counts.items())],
        "{call}",
        "Calls that a limit has ended, by limit.",
    )


def show_open_files(meter: Meter, files: OpenFiles) -> None:
    """Let the meter's readers read how many files are open, and whether none can be opened."""
    meter.create_observable_gauge(
        "kvblock.open_files",
        [lambda _: [Observation(open_files.count())]],
        "{file}",
        "Open files and connections of the process.",
    )
    meter.create_observable_gauge(
        "kvblock.open_files.limit",
        [lambda _: [Observation(open_files.limit())]],
        "{file}",
        "How many it may have open.",
    )
    meter.create_observable_counter(
        "kvblock.open_files.shortages",
        [lambda _: [Observation(files.shortages)]],
        "{look}",
        "Looks, one a second, that found no descriptor left to accept a connection with.",
    )


_Callback = Callable[[CallbackOptions], Iterable[Observation]]


_Shown = tuple[str, Callable[[PoolState], Iterable[_Row]], str, str]


def _blocks(state: PoolState) -> list[_Row]:
    return [
        (state.free_blocks, {"state": "free"}),
        (state.held_blocks, {"state": "held"}),
        (state.quarantined_blocks, {"state": "quarantined"}),
    ]


def _refusals(state: PoolState) -> list[_Row]:
    return [(count, {"reason": reason.name}) for reason, count in state.refused_total.items()]


def _one(value: Callable[[PoolState], float]) -> Callable[[PoolState], Iterable[_Row]]:
    return lambda state: [(value(state), {})]


_GAUGES: tuple[_Shown, ...] = (
    ("kvblock.pool.blocks", _blocks, "{block}", "Blocks by state: free, held or quarantined."),
    (
        "kvblock.pool.sequences",
        _one(lambda state: state.sequences),
        "{sequence}",
        "Sequences that have a block table.",
    ),
    (
        "kvblock.pool.waiting",
        _one(lambda state: state.waiting),
        "{call}",
        "Allocate calls that wait for blocks.",
    ),
    (
        "kvblock.leases",
        _one(lambda state: sum(1 for engine in state.engines if engine.epoch)),
        "{lease}",
        "Engines that have a lease.",
    ),
)
_COUNTERS: tuple[_Shown, ...] = (
    ("kvblock.refusals", _refusals, "{refusal}", "Refused allocations, by reason."),
    (
        "kvblock.blocks.allocated",
        _one(lambda state: state.allocated_total),
        "{block}",
        "Blocks granted.",
    ),
    ("kvblock.blocks.freed", _one(lambda state: state.freed_total), "{block}", "Blocks returned."),
    (
        "kvblock.blocks.reclaimed",
        _one(lambda state: state.reclaimed_total),
        "{block}",
        "Blocks taken from engines that vanished.",
    ),
    (
        "kvblock.leases.expired",
        _one(lambda state: state.expired_total),
        "{lease}",
        "Leases that ran out.",
    ),
)
