"""Gives each command to a pool and to the naive model, and compares the two.

Rules:
- What is compared is everything that can be seen of a pool, and the order of its free blocks, which
  the next grants depend on.
- Both have the same clock, that of the model.
"""

from copy import deepcopy
from typing import NamedTuple

from kvblock_service.core import leases
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import (
    Command,
    EndQuarantine,
    Expire,
    Outcome,
    RefusalReason,
    Stamp,
)
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.pool import Pool
from tests.property.model import ModelPool


class Shown(NamedTuple):
    """What a server shows of a pool: who has which block, the leases, and what was counted.

    `acquired` are in the order of the pool; `dropped` are the blocks that tables have dropped at
    their heads; `leases` are epochs.
    """

    tables: dict[str, dict[int, list[int]]]
    acquired: dict[str, list[int]]
    dropped: dict[tuple[str, int], int]
    leases: dict[str, int]
    free: int
    quarantined: list[int]
    allocated_total: int
    freed_total: int
    reclaimed_total: int
    expired_total: int
    refused_total: dict[RefusalReason, int]


def shown_by_pool(pool: Pool) -> Shown:
    """What the core has."""
    engines, blocks = pool.engines.values(), pool.blocks
    return Shown(
        tables={
            one.name: {name: list(blocks_of(table)) for name, table in one.tables.items()}
            for one in engines
            if one.tables
        },
        acquired={
            one.name: one.acquired.blocks(blocks.grants).tolist() for one in engines if one.acquired
        },
        dropped={
            (one.name, sequence_id): first
            for one in engines
            for sequence_id, first in one.first_indexes.items()
        },
        leases={one.name: one.epoch for one in engines if one.epoch},
        free=len(blocks.free_list),
        quarantined=[block for batch in blocks.quarantine.values() for block in batch.blocks],
        allocated_total=blocks.allocated_total,
        freed_total=blocks.freed_total,
        reclaimed_total=blocks.reclaimed_total,
        expired_total=pool.expired_total,
        refused_total=pool.refused_total,
    )


def shown_by_model(model: ModelPool) -> Shown:
    """What it should have."""
    return Shown(
        tables=model.tables,
        acquired=model.acquired,
        dropped=model.dropped,
        leases={name: lease.epoch for name, lease in model.leases.items()},
        free=len(model.free),
        quarantined=[block for _, blocks in model.batches.values() for block in blocks],
        allocated_total=model.allocated,
        freed_total=model.freed,
        reclaimed_total=model.reclaimed,
        expired_total=model.expired,
        refused_total=model.refused,
    )


def stamp_of(model: ModelPool) -> Stamp:
    """When a command is given now; the wall clock is for those who ask, and may run backwards."""
    return Stamp(model.now, (2**40 - model.now) * 86_400, "")


def apply_both(pool: Pool, model: ModelPool, command: Command) -> tuple[Outcome, bool]:
    """Have both carry out a command, and answer what the pool did: see `Pool.apply`."""
    revision, before = pool.revision, model.changes()
    outcome, replayed = pool.apply(command, stamp_of(model))
    expected = model.apply(command)
    assert outcome == expected, f"{command} is answered {outcome}, not {expected}"
    assert not replayed or pool.revision == revision
    assert pool.revision - revision == (model.changes() != before)
    return outcome, replayed


def due_of_both(pool: Pool, model: ModelPool, wait: int | None) -> list[Command]:
    """Whatever has ended by now, in the order that the pool says; see `leases.due`."""
    now = model.now
    ended = [EndQuarantine(n) for n, (ends, _) in model.batches.items() if ends <= now]
    expired = [
        (name, lease.epoch, lease.ttl if wait is None else wait)
        for name, lease in model.leases.items()
        if lease.ends <= now
    ]
    due = leases.due(pool, now, wait)
    assert [one for one in due if isinstance(one, EndQuarantine)] == ended
    found = [one[:3] for one in due if isinstance(one, Expire)]
    assert sorted(found) == sorted(expired)
    return due


def check_clean(pool: Pool, model: ModelPool) -> None:
    """The pool is sound by its own recount, which counts what the model has."""
    report = audit(pool)
    assert report.violations == []
    assert report.free_blocks == len(model.free)
    waiting = sum(len(blocks) for _, blocks in model.batches.values())
    assert report.quarantined_blocks == waiting
    assert report.free_blocks + report.held_blocks + waiting == model.total
    assert model.total + report.reserved_blocks == pool.geometry.total_blocks


def check_next(pool: Pool, model: ModelPool) -> None:
    """Whatever is asked for next would be handed out, not only what the next command asks for."""
    free = model.free
    for count in {1, 2, len(free)}:
        if count <= len(free):
            assert deepcopy(pool.blocks.free_list).take(count) == free[:count]


def check_same(pool: Pool, model: ModelPool) -> None:
    """Both have the same, in the same order."""
    assert shown_by_pool(pool) == shown_by_model(model)
    found = {
        name: (engine.epoch, engine.deadline_ms, engine.last_step_id)
        for name, engine in pool.engines.items()
        if engine.epoch
    }
    assert found == {
        name: (lease.epoch, lease.ends, len(lease.steps)) for name, lease in model.leases.items()
    }
    waiting = {
        number: (batch.due_ms, batch.blocks.tolist())
        for number, batch in pool.blocks.quarantine.items()
    }
    assert waiting == model.batches
