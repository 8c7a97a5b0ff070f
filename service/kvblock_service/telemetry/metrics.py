"""What is read each time metrics are collected: pools, sessions, the journal, rejected calls.

Rules:
- It is read by the thread that collects, from what the server itself goes by: what is shown cannot
  drift from what is there, and costs nothing while nobody collects.
- Each pool is read once for a collection: all that is shown of it is of one moment.
- A gauge's name says what is counted or its unit, never `total`: that is for counters.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from kvblock_service.core.listing import PoolState
from kvblock_service.event_counter import EventCounter
from kvblock_service.host import Host
from kvblock_service.telemetry.durations import Durations
from kvblock_service.telemetry.sources import Sources

_Row: TypeAlias = tuple[float, dict[str, str]]
_Rows: TypeAlias = Callable[[], Iterable[_Row]]


class Pools:
    """The pools of a host as they were when they were looked at last: `states`, by name."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.states: dict[str, PoolState] = {}

    def look(self) -> None:
        """Read all of them."""
        self.states = {name: pool.state() for name, pool in self._host.pools.items()}


def show(meter: Meter, sources: Sources, pools: Pools, durations: Durations) -> None:
    """Let everything be read by the meter's readers, and no duration be missed by them."""
    host, rejected = sources.host, sources.rejected

    def gauge(name: str, unit: str, text: str, rows: _Rows) -> None:
        meter.create_observable_gauge(name, [_callback(rows)], unit, text)

    def counter(name: str, unit: str, text: str, rows: _Rows) -> None:
        meter.create_observable_counter(name, [_callback(rows)], unit, text)

    def sessions() -> Iterable[_Row]:
        # A collection begins with the callback of the instrument that was made first, and ends with
        # the histograms.
        pools.look()
        durations.record()
        # The copy is made at once; the loop's thread may change the original meanwhile.
        attached = Counter(pool for pool, _ in tuple(host.sessions))
        return [(attached[name], {"pool": name}) for name in host.pools]

    def capacity() -> Iterable[_Row]:
        return [(pool.geometry.total_blocks, {"pool": name}) for name, pool in host.pools.items()]

    gauge("kvblock.sessions", "{session}", "Sessions that are attached.", sessions)
    gauge("kvblock.pool.capacity.blocks", "{block}", "Blocks in the pool.", capacity)
    for name, unit, text, of_state in _POOL_GAUGES:
        gauge(name, unit, text, _by_pool(pools, of_state))
    for name, unit, text, of_state in _POOL_COUNTERS:
        counter(name, unit, text, _by_pool(pools, of_state))
    logins, limits = _by_reason(rejected.logins), _by_reason(rejected.limits)
    denials = _by_reason(rejected.denials)
    counter("kvblock.login.failures", "{login}", "Failed logins, by reason.", logins)
    counter("kvblock.permission.denials", "{call}", "Denied permissions, by reason.", denials)
    counter("kvblock.calls.rejected", "{call}", "Calls that a limit has ended, by limit.", limits)
    text = "Lines of the log that could not be written."
    counter("kvblock.log.lines.dropped", "{line}", text, _one(lambda: sources.log.dropped))
    if files := sources.files:
        text = (
            "Looks, one a second, that found no file descriptor left to accept a connection with."
        )
        counter("kvblock.descriptor.shortages", "{look}", text, _one(lambda: files.shortages))
    if committer := sources.committer:
        journal = committer.journal
        text = "Space that the files of the journal take."
        gauge("kvblock.journal.size", "By", text, _one(lambda: journal.space_taken))
        text = "Length of the records that were written to the journal."
        counter("kvblock.journal.written", "By", text, _one(lambda: journal.bytes_written))
        text = "1 while the journal cannot be written, else 0."
        gauge(
            "kvblock.journal.unwritable", "", text, _one(lambda: int(committer.failure is not None))
        )


def _callback(rows: _Rows) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, attributes) for value, attributes in rows()]


def _by_pool(pools: Pools, of_state: Callable[[PoolState], Iterable[_Row]]) -> _Rows:
    return lambda: [
        (value, {"pool": name, **attributes})
        for name, state in pools.states.items()
        for value, attributes in of_state(state)
    ]


def _by_reason(counter: EventCounter[Any]) -> _Rows:
    """The counts of an event, each of which is there from the start."""
    return lambda: [(count, {"reason": kind.name}) for kind, count in counter.counts.items()]


def _one(value: Callable[[], float]) -> _Rows:
    return lambda: [(value(), {})]


def _blocks(state: PoolState) -> list[_Row]:
    return [
        (state.free_blocks, {"state": "free"}),
        (state.held_blocks, {"state": "held"}),
        (state.quarantined_blocks, {"state": "quarantined"}),
        (state.reserved_blocks, {"state": "reserved"}),
    ]


def _refusals(state: PoolState) -> list[_Row]:
    return [(count, {"reason": reason.name}) for reason, count in state.refused_total.items()]


def _figure(name: str) -> Callable[[PoolState], Iterable[_Row]]:
    return lambda state: [(getattr(state, name), {})]


def _leases(state: PoolState) -> list[_Row]:
    return [(sum(1 for engine in state.engines if engine.epoch), {})]


_Shown: TypeAlias = tuple[str, str, str, Callable[[PoolState], Iterable[_Row]]]

_POOL_GAUGES: tuple[_Shown, ...] = (
    (
        "kvblock.pool.blocks",
        "{block}",
        "Blocks by state: free, held, quarantined or reserved.",
        _blocks,
    ),
    (
        "kvblock.pool.acquired.blocks",
        "{block}",
        "Held blocks that are in no block table.",
        _figure("acquired_blocks"),
    ),
    (
        "kvblock.pool.sequences",
        "{sequence}",
        "Sequences that have a block table.",
        _figure("sequences"),
    ),
    ("kvblock.pool.waiting", "{call}", "Allocate calls that wait for blocks.", _figure("waiting")),
    (
        "kvblock.pool.want.blocks",
        "{block}",
        "Blocks that engines lack: wanted by hints, refused or waited for.",
        _figure("want_blocks"),
    ),
    (
        "kvblock.pool.idle.blocks",
        "{block}",
        "Blocks that engines could give back, by their last hints.",
        _figure("idle_blocks"),
    ),
    (
        "kvblock.pool.owed.blocks",
        "{block}",
        "Idle blocks of engines that others lack.",
        _figure("owed_blocks"),
    ),
    ("kvblock.leases", "{lease}", "Engines that have a lease.", _leases),
)
_POOL_COUNTERS: tuple[_Shown, ...] = (
    ("kvblock.refusals", "{refusal}", "Refused allocations, by reason.", _refusals),
    ("kvblock.blocks.allocated", "{block}", "Blocks granted.", _figure("allocated_total")),
    ("kvblock.blocks.freed", "{block}", "Blocks returned.", _figure("freed_total")),
    (
        "kvblock.blocks.reclaimed",
        "{block}",
        "Blocks taken from engines that vanished.",
        _figure("reclaimed_total"),
    ),
    ("kvblock.leases.expired", "{lease}", "Leases that expired.", _figure("expired_total")),
)
