"""What `kvblock top` has seen: the newest look at the server, rates, and the last minute of use.

Rules:
- A rate is the growth of a counter between two looks, divided by the seconds between their answers
  on this machine's monotonic clock. There is none for a pool that is new, nor when the server began
  a new epoch, with which its counters begin anew.
- The last minute is kept in seconds: of several looks in one second the highest use counts.
- A listing of engines takes an admin. Who is none is refused once and not heard of again: what
  Stats tells of engines is shown then, which has no heartbeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kvblock import Client, EngineInfo, EngineStats, PoolStats, ServerStats

SECONDS_KEPT = 60


@dataclass(frozen=True)
class PoolRow:
    """One pool; rates are per second, None where there is none."""

    pool: str
    total_blocks: int
    reserved_blocks: int
    free_blocks: int
    held_blocks: int
    quarantined_blocks: int
    waiting: int
    allocated_per_second: float | None
    freed_per_second: float | None
    refused_per_second: float | None
    changes_per_second: float | None
    want_blocks: int
    idle_blocks: int
    owed_blocks: int
    acquired_blocks: int

    @property
    def issuable_blocks(self) -> int:
        """Blocks that engines can have in all: those that are not reserved."""
        return self.total_blocks - self.reserved_blocks


@dataclass(frozen=True)
class EngineRow:
    """One engine in one pool; `share` is the part of the pool's issuable blocks that it holds."""

    pool: str
    engine: str
    held_blocks: int
    share: float
    sequences: int
    epoch: int
    lease_expires_in: float | None
    since_heartbeat: float | None
    held_change_per_second: float | None
    want_blocks: int
    idle_blocks: int
    owed_blocks: int
    acquired_blocks: int


class Look(NamedTuple):
    """What the server answered, `at` a moment of the monotonic clock."""

    at: float
    stats: ServerStats
    engines: tuple[EngineInfo, ...]


_POOL_COUNTERS: tuple[Callable[[PoolStats], int], ...] = (
    lambda pool: pool.allocated_blocks_total,
    lambda pool: pool.freed_blocks_total,
    lambda pool: sum(pool.refusals.values()),
    lambda pool: pool.revision,
)
"""What the rates of a PoolRow are taken from, in their order."""


class Looker:
    """Asks a server; empty names mean all pools and all engines."""

    def __init__(self, kv: Client, pool: str, engine: str) -> None:
        self._kv = kv
        self._pool = pool
        self._engine = engine
        self._may_list = True

    def look(self) -> Look:
        """One look.

        Raises:
            KVBlockError: the server is not there, or refuses.

        """
        from kvblock import PermissionDeniedError

        stats = self._kv.stats(pool=self._pool, engine=self._engine)
        at = monotonic()
        if self._may_list:
            try:
                rows = tuple(
                    row
                    for row in self._kv.list_engines(pool=self._pool)
                    if self._engine in ("", row.engine)
                )
                return Look(at, stats, rows)
            except PermissionDeniedError:
                self._may_list = False
        return Look(at, stats, _from_stats(stats))


class Overview:
    """What was seen so far; `problem` is why the newest look failed, empty when it did not.

    `silent_for` is how many seconds before it the last answer came.
    """

    def __init__(self, first: Look) -> None:
        self._use: dict[tuple[str, ...], deque[tuple[int, float | None]]] = {}
        self.problem = ""
        self.silent_for = 0.0
        self._take(first, None)

    def add(self, look: Look) -> None:
        """Take a new look."""
        self.problem = ""
        self._take(look, self.look)

    def fail(self, problem: str) -> None:
        """Remember that there was no answer, and why."""
        self.problem = problem
        self.silent_for = monotonic() - self.look.at
        for key in self._use:
            self._remember(key, int(monotonic()), None)

    def trend(self, cells: int, *key: str) -> list[float | None]:
        """The use of a pool, or of an engine in it, over the last minute, the oldest first.

        None: not known. A cell that no look fell into is like the one before.
        """
        found: list[float | None] = [None] * cells
        seen: set[int] = set()
        begin = int(monotonic()) - SECONDS_KEPT + 1
        for second, use in self._use.get(key, ()):
            index = (second - begin) * cells // SECONDS_KEPT
            if index < 0:
                continue
            known = found[index]
            seen.add(index)
            found[index] = use if known is None else max(known, use or 0.0)
        for index in range(1, cells):
            if index not in seen:
                found[index] = found[index - 1]
        return found

    def _take(self, look: Look, before: Look | None) -> None:
        self.look = look
        self.seconds = look.at - before.at if before else 0.0
        if before and before.stats.server_epoch != look.stats.server_epoch:
            before = None
        pools = {pool.pool: pool for pool in before.stats.pools} if before else {}
        held = {(row.pool, row.engine): row.held_blocks for row in before.engines} if before else {}
        self.pools = [self._pool_row(pool, pools.get(pool.pool)) for pool in look.stats.pools]
        totals = {pool.pool: pool.issuable_blocks for pool in look.stats.pools}
        self.engines = [
            self._engine_row(row, totals.get(row.pool, 0), held.get((row.pool, row.engine)))
            for row in look.engines
        ]
        second = int(look.at)
        for pool in self.pools:
            self._remember((pool.pool,), second, _share(pool.held_blocks, pool.issuable_blocks))
        for engine in self.engines:
            self._remember((engine.pool, engine.engine), second, engine.share)
        for key in [key for key, use in self._use.items() if use[-1][0] <= second - SECONDS_KEPT]:
            del self._use[key]

    def _pool_row(self, now: PoolStats, before: PoolStats | None) -> PoolRow:
        allocated, freed, refused, changes = (
            None if before is None else self._rate(of(now) - of(before)) for of in _POOL_COUNTERS
        )
        return PoolRow(
            now.pool,
            now.total_blocks,
            now.reserved_blocks,
            now.free_blocks,
            now.held_blocks,
            now.quarantined_blocks,
            now.waiting,
            allocated,
            freed,
            refused,
            changes,
            *recall_of(now),
            now.acquired_blocks,
        )

    def _engine_row(self, now: EngineInfo, total: int, before: int | None) -> EngineRow:
        return EngineRow(
            now.pool,
            now.engine,
            now.held_blocks,
            _share(now.held_blocks, total),
            now.sequences,
            now.epoch,
            now.lease_expires_in,
            now.since_heartbeat,
            None if before is None else self._rate(now.held_blocks - before, falls=True),
            *recall_of(now),
            now.acquired_blocks,
        )

    def _rate(self, growth: int, *, falls: bool = False) -> float | None:
        # A counter that fell is that of another pool of the same name.
        if self.seconds <= 0 or (growth < 0 and not falls):
            return None
        return growth / self.seconds

    def _remember(self, key: tuple[str, ...], second: int, use: float | None) -> None:
        kept = self._use.setdefault(key, deque(maxlen=SECONDS_KEPT))
        if kept and kept[-1][0] == second:
            before = kept.pop()[1]
            use = before if use is None else max(use, before or 0.0)
        kept.append((second, use))


def recall_of(row: PoolStats | EngineInfo | EngineStats) -> tuple[int, int, int]:
    """What a pool or an engine lacks, could give back and owes."""
    return row.want_blocks, row.idle_blocks, row.owed_blocks


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _from_stats(stats: ServerStats) -> tuple[EngineInfo, ...]:
    from kvblock import EngineInfo

    return tuple(
        EngineInfo(
            pool.pool,
            engine.engine,
            engine.epoch,
            engine.lease_expires_in,
            engine.held_blocks,
            engine.sequences,
            False,
            None,
            engine.acquired_blocks,
            *recall_of(engine),
        )
        for pool in stats.pools
        for engine in pool.engines
    )
