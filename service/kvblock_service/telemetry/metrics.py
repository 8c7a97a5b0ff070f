"""What is read each time metrics are collected: pools, sessions, the journal, who was turned away.

Rules:
- It is read by the thread that collects, from what the server itself goes by: what is shown cannot
  drift from what is there, and costs nothing while nobody collects.
- Each pool is read once for a collection: all that is shown of it is of one moment.
- A gauge's name says what is counted or its unit, never `total`: that is for counters.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider

from kvblock.version import VERSION
from kvblock_service.access import TurnedAway
from kvblock_service.committer import Committer
from kvblock_service.host import Host
from kvblock_service.log_stream import LogStream
from kvblock_service.open_files import OpenFiles
from kvblock_service.pool_host import PoolState
from kvblock_service.telemetry import names
from kvblock_service.telemetry.durations import Durations

_Row = tuple[float, dict[str, str]]
_Callback = Callable[[CallbackOptions], Iterable[Observation]]
_Shown = tuple[str, Callable[[PoolState], Iterable[_Row]], str, str]


class Pools:
    """The pools of a host as they were when they were looked at last: `states`, by name."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.states: dict[str, PoolState] = {}

    def look(self) -> None:
        """Read all of them."""
        self.states = {name: pool.state() for name, pool in self._host.pools.items()}


def meter_of(provider: MeterProvider) -> Meter:
    """The meter of this package."""
    return provider.get_meter(names.SCOPE, VERSION)


def show_pools(meter: Meter, host: Host, pools: Pools, durations: Durations) -> None:
    """Let the pools of a host be read by the meter's readers, and no duration be missed by them."""

    def by_pool(rows: Callable[[PoolState], Iterable[_Row]]) -> list[_Callback]:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for name, state in pools.states.items():
                for value, attributes in rows(state):
                    yield Observation(value, {"pool": name, **attributes})

        return [callback]

    def sessions(_: CallbackOptions) -> Iterable[Observation]:
        # A collection begins with the callback of the instrument that was made first, and ends with
        # the histograms.
        pools.look()
        durations.record()
        # The copy is made at once; the loop's thread may change the original meanwhile.
        attached = Counter(pool for pool, _ in tuple(host.sessions))
        return [Observation(attached[name], {"pool": name}) for name in host.pools]

    def capacity(_: CallbackOptions) -> Iterable[Observation]:
        for name, pool in host.pools.items():
            yield Observation(pool.geometry.total_blocks, {"pool": name})

    gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
    gauge("kvblock.sessions", [sessions], "{session}", "Sessions that are attached.")
    gauge("kvblock.pool.capacity.blocks", [capacity], "{block}", "Blocks in the pool.")
    for name, rows, unit, text in _GAUGES:
        gauge(name, by_pool(rows), unit, text)
    for name, rows, unit, text in _COUNTERS:
        counter(name, by_pool(rows), unit, text)


def show_journal(meter: Meter, committer: Committer) -> None:
    """Let the meter's readers read how large the journal is, and whether it can be written."""

    def one(value: Callable[[], int]) -> list[_Callback]:
        return [lambda _: [Observation(value())]]

    meter.create_observable_gauge(
        "kvblock.journal.size",
        one(lambda: committer.journal.space_taken),
        "By",
        "Space that the files of the journal take.",
    )
    meter.create_observable_counter(
        "kvblock.journal.written",
        one(lambda: committer.journal.bytes_written),
        "By",
        "Length of the records that were written to the journal.",
    )
    meter.create_observable_gauge(
        "kvblock.journal.unwritable",
        one(lambda: int(committer.failure is not None)),
        "",
        "1 while the journal cannot be written, else 0.",
    )


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
    """Let the meter's readers read whether no connection could be accepted."""
    meter.create_observable_counter(
        "kvblock.descriptor.shortages",
        [lambda _: [Observation(files.shortages)]],
        "{look}",
        "Looks, one a second, that found no file descriptor left to accept a connection with.",
    )


def show_log(meter: Meter, log: LogStream) -> None:
    """Let the meter's readers read how much of the log is missing."""
    meter.create_observable_counter(
        "kvblock.log.lines.dropped",
        [lambda _: [Observation(log.dropped)]],
        "{line}",
        "Lines of the log that could not be written.",
    )


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
