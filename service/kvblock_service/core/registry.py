"""The pools of a server as a state machine: which there are, and what made them.

Rules:
- A pool comes and goes by a command of `apply` alone, live and at a restart: nothing but the
  commands and the order in which they came decides what is there.
- A command with a request_id takes effect once; the last REQUEST_IDS_MAX of them are known.
- `last_epoch` is at least every epoch that was ever handed out, by deleted pools too: a later pool
  of the same name must not hand out an epoch that a late client still has.
"""

from collections.abc import Iterable
from typing import NamedTuple

from kvblock_service.core.commands import (
    Command,
    CreatePool,
    DeletePool,
    IdReused,
    LimitReached,
    Outcome,
    PoolAbsent,
    PoolChange,
    PoolChanged,
    PoolPresent,
    PoolRejection,
    Stamp,
)
from kvblock_service.core.idempotency import IdempotencyCache, is_same, key_of
from kvblock_service.core.pool import Bounds, Pool

REQUEST_IDS_MAX = 1024
"""Commands of a registry that are known by their request_id."""
UNLIMITED = 2**63


class PoolEntry(NamedTuple):
    """A pool, and with what it was made: see CreatePool."""

    pool: Pool
    configured: bool
    quarantine_ms: int | None = None


class Registry:
    """Pools by name, in the order in which they were made.

    `bounds` are those of pools to come; `pools_max` limits how many there may be.
    """

    def __init__(
        self, bounds: Bounds, epoch_floor: int = 0, entries: Iterable[PoolEntry] = ()
    ) -> None:
        self.bounds = bounds
        self.pools_max = UNLIMITED
        self.pools = {entry.pool.geometry.name: entry for entry in entries}
        self.cache: IdempotencyCache[PoolChange, PoolChanged] = IdempotencyCache(REQUEST_IDS_MAX)
        self._epoch_floor = epoch_floor

    @property
    def last_epoch(self) -> int:
        """The greatest epoch of any pool, deleted ones too."""
        return max([self._epoch_floor, *(entry.pool.last_epoch for entry in self.pools.values())])

    @property
    def changes(self) -> tuple[PoolChange, ...]:
        """The commands that are known by their request_id, the oldest first."""
        return tuple(command for command, _, _ in self.cache.results.values())

    def apply(self, change: PoolChange) -> tuple[PoolChanged | PoolRejection, bool]:
        """Make or delete a pool; True: that was done before, and nothing was changed."""
        known = self.cache.results.get(_key(change)) if change.request_id else None
        if known is not None:
            first, answer, _ = known
            return (answer if is_same(change, first) else IdReused("request_id")), True
        outcome = self._create(change) if isinstance(change, CreatePool) else self._delete(change)
        if isinstance(outcome, PoolChanged):
            self.remember(change)
        return outcome, False

    def replay(
        self, name: str, stamp: Stamp, command: Command
    ) -> tuple[Outcome | PoolAbsent, bool]:
        """Carry out a command of a pool that is on record: it was a new one, whatever is known."""
        entry = self.pools.get(name)
        if entry is None:
            return PoolAbsent(name), False
        if command.request_id:
            entry.pool.cache.forget(key_of(command))
        return entry.pool.apply(command, stamp)

    def replay_change(self, change: PoolChange) -> tuple[PoolChanged | PoolRejection, bool]:
        """`apply` a command that is on record: it was a new one, whatever is known."""
        self.cache.forget(_key(change))
        return self.apply(change)

    def knows(self, change: PoolChange) -> bool:
        """Whether `apply` would answer a command by its request_id, and change nothing."""
        return bool(change.request_id) and _key(change) in self.cache.results

    def remember(self, change: PoolChange) -> None:
        """Let a command that was carried out be known by its request_id, if it has one."""
        if change.request_id:
            self.cache.put(_key(change), change, PoolChanged())

    def set_bounds(self, bounds: Bounds) -> None:
        """Bound all pools, those to come too."""
        self.bounds = bounds
        for entry in self.pools.values():
            entry.pool.bounds = bounds

    def _create(self, change: CreatePool) -> PoolChanged | PoolPresent | LimitReached:
        geometry, epoch_floor, configured, quarantine_ms, _ = change
        name = geometry.name
        if name in self.pools:
            return PoolPresent(name)
        if len(self.pools) >= self.pools_max:
            return LimitReached("pools_max", self.pools_max)
        pool = Pool(geometry, self.bounds, epoch_floor)
        self.pools[name] = PoolEntry(pool, configured, quarantine_ms)
        return PoolChanged()

    def _delete(self, change: DeletePool) -> PoolChanged | PoolAbsent:
        entry = self.pools.pop(change.pool, None)
        if entry is None:
            return PoolAbsent(change.pool)
        self._epoch_floor = max(self._epoch_floor, entry.pool.last_epoch)
        return PoolChanged()


def _key(change: PoolChange) -> tuple[str, int, str]:
    return ("", 0, change.request_id)
