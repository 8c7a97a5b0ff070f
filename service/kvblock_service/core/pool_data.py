"""All that one pool is: its blocks, its engines with their leases, and what was asked before.

Rules:
- An engine is in `engines` exactly while it has a table or a lease.
- An epoch is handed out once in the life of a pool and grows; all are greater than the floor that
  the pool began with, so that those of an earlier life of the pool are stale.
- `revision` grows by one with each command that changed a table, a lease or the quarantine.
"""

from collections.abc import Sequence
from typing import NamedTuple

from kvblock_service.core.blocks import Blocks
from kvblock_service.core.commands import (
    Answer,
    Command,
    Fenced,
    Geometry,
    LimitReached,
    RefusalReason,
    Refused,
    Stamp,
)
from kvblock_service.core.engine import Engine, blocks_of
from kvblock_service.core.idempotency import IdempotencyCache


class Bounds(NamedTuple):
    """How much state a pool may hold."""

    engines_max: int
    sequences_per_engine_max: int
    request_ids_max: int


class PoolData:
    """A pool as data, and what all of its commands ask of it."""

    def __init__(self, geometry: Geometry, bounds: Bounds, epoch_floor: int = 0) -> None:
        self.geometry = geometry
        self.bounds = bounds
        self.blocks = Blocks(geometry.total_blocks, geometry.reserved_blocks)
        self.engines: dict[str, Engine] = {}
        self.last_epoch = epoch_floor
        self.cache: IdempotencyCache[Command, Answer] = IdempotencyCache(bounds.request_ids_max)
        self.revision = 0
        self.expired_total = 0
        self.refused_total = dict.fromkeys(RefusalReason, 0)

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's table in table order, or None when it has none."""
        owner = self.engines.get(engine)
        table = owner.tables.get(sequence_id) if owner else None
        return None if table is None else list(blocks_of(table))

    def admit(self, engine: Engine | None, epoch: int, stamp: Stamp) -> Fenced | None:
        """Let a command of the engine's epoch pass, and its lease last for a full TTL from now."""
        if engine is None:
            return Fenced(0) if epoch else None
        if engine.epoch != epoch:
            return Fenced(engine.epoch)
        engine.deadline_ms = stamp.now_ms + engine.ttl_ms
        return None

    def enter(self, name: str) -> Engine:
        """Begin an engine."""
        engine = self.engines[name] = Engine(name)
        return engine

    def leave_if_empty(self, engine: Engine) -> None:
        """End an engine that has neither a table nor a lease."""
        if not engine.tables and not engine.epoch:
            del self.engines[engine.name]

    def refuse(self, engine: Engine | None, need: int, free_blocks: int) -> Refused:
        """Count an allocation of `need` blocks that do not fit into the free ones."""
        exceeds = need > self.geometry.issuable_blocks
        reason = RefusalReason.EXCEEDS_POOL if exceeds else RefusalReason.POOL_EXHAUSTED
        self.refused_total[reason] += 1
        if engine is not None:
            engine.refusals += 1
        return Refused(reason, free_blocks, need)

    def crossed(
        self, engine: Engine | None, free_ids: Sequence[int], allocate_ids: Sequence[int]
    ) -> LimitReached | None:
        """The limit that a command would cross if all its allocations were granted."""
        bounds = self.bounds
        if engine is None and allocate_ids and len(self.engines) >= bounds.engines_max:
            return LimitReached("engines_max", bounds.engines_max)
        tables = engine.tables if engine is not None else {}
        if len(tables) + len(allocate_ids) <= bounds.sequences_per_engine_max:
            return None
        left = tables.keys() - free_ids
        if len(left.union(allocate_ids)) <= bounds.sequences_per_engine_max:
            return None
        return LimitReached("sequences_per_engine_max", bounds.sequences_per_engine_max)
