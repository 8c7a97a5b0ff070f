"""Leases, epochs and quarantine: how a pool learns that an engine is gone.

Rules:
- An epoch is handed out once in the life of a pool and grows with every attach that does not
  resume. A command with another epoch than the engine's changes nothing.
- A lease ends by a detach, which frees the engine's blocks at once, or by an expiry, a takeover or
  a reclaim, which put them into quarantine: the engine's last writes may still be on their way.
- A block in quarantine is neither free nor in a table.
- How long blocks wait is part of the command, so that a change of the configuration does not change
  what commands of the past have done.
- Nothing ends by itself: `due` says what time has brought about, as commands to apply.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from kvblock_service.core.commands import (
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    EngineHeld,
    Expire,
    Fenced,
    Freed,
    LimitReached,
    Reclaim,
    Renew,
    Renewed,
    Stamp,
)
from kvblock_service.core.engine import Batch, Engine, blocks_of

if TYPE_CHECKING:
    from kvblock_service.core.pool import Pool


def attach(
    pool: Pool, command: Attach, stamp: Stamp
) -> Attached | EngineHeld | Fenced | LimitReached:
    """Begin a lease or resume one."""
    engine = pool.engines.get(command.engine)
    current = engine.epoch if engine else 0
    if engine is not None and current and current == command.epoch:
        engine.ttl_ms = command.ttl_ms
        engine.deadline_ms = stamp.now_ms + command.ttl_ms
        return _attached(engine, resumed=True)
    if engine is not None and current:
        if not command.takeover:
            return EngineHeld(max(0, engine.deadline_ms - stamp.now_ms))
        _vacate(pool, engine, command.quarantine_ms, stamp)
        engine = pool.engines[command.engine] = Engine(command.engine)
    elif command.epoch and not command.takeover:
        return Fenced(0)
    if engine is None:
        if len(pool.engines) >= pool.bounds.engines_max:
            return LimitReached("engines_max", pool.bounds.engines_max)
        engine = pool.engines[command.engine] = Engine(command.engine)
    pool.last_epoch += 1
    engine.epoch = pool.last_epoch
    engine.ttl_ms = command.ttl_ms
    engine.deadline_ms = stamp.now_ms + command.ttl_ms
    pool.revision += 1
    return _attached(engine, resumed=False)


def renew(pool: Pool, command: Renew, stamp: Stamp) -> Renewed | Fenced:
    """Let a lease last longer. It is no change that has to outlive the server."""
    engine = pool.engines.get(command.engine)
    if engine is None or not engine.epoch or engine.epoch != command.epoch:
        return Fenced(engine.epoch if engine else 0)
    engine.deadline_ms = stamp.now_ms + engine.ttl_ms
    return Renewed(engine.ttl_ms)


def detach(pool: Pool, command: Detach, _: Stamp) -> Freed | Fenced:
    """End a lease and free the engine's blocks."""
    engine = pool.engines.get(command.engine)
    if engine is None or not engine.epoch or engine.epoch != command.epoch:
        return Fenced(engine.epoch if engine else 0)
    count = sum(pool.give_back(engine, list(engine.tables)))
    _end(pool, engine)
    pool.revision += 1
    return Freed(count)


def expire(pool: Pool, command: Expire, stamp: Stamp) -> Freed | Fenced:
    """End a lease that has run out."""
    engine = pool.engines.get(command.engine)
    if engine is None or not engine.epoch or engine.epoch != command.epoch:
        return Fenced(engine.epoch if engine else 0)
    pool.expired_total += 1
    pool.revision += 1
    return Freed(_vacate(pool, engine, command.quarantine_ms, stamp))


def reclaim(pool: Pool, command: Reclaim, stamp: Stamp) -> Freed | Fenced:
    """Take an engine's blocks away; its epoch, when one is named, must be the one meant."""
    engine = pool.engines.get(command.engine)
    if command.epoch and (engine is None or engine.epoch != command.epoch):
        return Fenced(engine.epoch if engine else 0)
    if engine is None:
        return Freed(0)
    pool.revision += 1
    return Freed(_vacate(pool, engine, command.quarantine_ms, stamp))


def end_quarantine(pool: Pool, command: EndQuarantine, _: Stamp) -> Freed:
    """Put a batch back on the free list."""
    batch = pool.quarantine.pop(command.batch, None)
    if batch is None:
        return Freed(0)
    pool.free_list.give_blocks(batch.blocks)
    pool.quarantined -= len(batch.blocks)
    pool.revision += 1
    return Freed(len(batch.blocks))


def due(pool: Pool, now_ms: int, quarantine_ms: int | None) -> list[Command]:
    """The leases that have run out and the batches that have waited long enough.

    `quarantine_ms` is how long the blocks of an expired lease are to wait; None: for its TTL.
    """
    commands: list[Command] = [
        EndQuarantine(number) for number, batch in pool.quarantine.items() if batch.due_ms <= now_ms
    ]
    commands += [
        Expire(engine.name, engine.epoch, engine.ttl_ms if quarantine_ms is None else quarantine_ms)
        for engine in pool.engines.values()
        if engine.epoch and engine.deadline_ms <= now_ms
    ]
    return commands


def begin_anew(pool: Pool, now_ms: int) -> None:
    """Give every lease its full TTL from now, and every batch its full time.

    For a pool whose server was not there: restarted, so that its clock is another one, or stopped,
    as perhaps the whole host was, with writes on their way. No record needs this: that a batch's
    time is over is a command of its own, and a restart begins anew by itself.
    """
    full_ttl(pool, now_ms)
    for number, batch in list(pool.quarantine.items()):
        pool.quarantine[number] = batch._replace(due_ms=now_ms + batch.period_ms)


def full_ttl(pool: Pool, now_ms: int) -> None:
    """Give every lease its full TTL from now: the server could not listen for renewals."""
    for engine in pool.engines.values():
        engine.deadline_ms = now_ms + engine.ttl_ms


def since_heartbeat_ms(engine: Engine, now_ms: int) -> int:
    """How long ago the last heartbeat of an engine that has a lease was."""
    return max(0, now_ms - (engine.deadline_ms - engine.ttl_ms))


def _attached(engine: Engine, resumed: bool) -> Attached:
    return Attached(
        engine.epoch,
        engine.ttl_ms,
        engine.held,
        len(engine.tables),
        engine.last_step_id,
        resumed,
    )


def _end(pool: Pool, engine: Engine) -> None:
    """An engine is no more; a later one of its name has nothing to do with it."""
    del pool.engines[engine.name]
    pool.memory.end(engine.name)


def _vacate(pool: Pool, engine: Engine, period_ms: int, stamp: Stamp) -> int:
    """End an engine: its blocks go into quarantine, or for a period of 0 on the free list."""
    blocks = array("I")
    for table in engine.tables.values():
        blocks.extend(blocks_of(table))
    count = len(blocks)
    _end(pool, engine)
    pool.reclaimed_total += count
    if not period_ms:
        pool.free_list.give_blocks(blocks)
    elif count:
        pool.last_batch += 1
        batch = Batch(blocks, stamp.now_ms + period_ms, period_ms, engine.name, engine.epoch)
        pool.quarantine[pool.last_batch] = batch
        pool.quarantined += count
    return count
