"""Leases, epochs and quarantine: how a pool learns that an engine is gone.

Rules:
- A lease begins with an epoch that grows with every attach that does not resume. A command with
  another epoch than the engine's changes nothing, an attach that comes too late to resume among
  them. An attach with `takeover` wants the name in any case: it begins a lease then.
- A lease ends by a detach, which frees the engine's blocks at once, or by an expiry, a takeover or
  a reclaim, which put them into quarantine: the engine's last writes may still be on their way.
- How long blocks wait is part of the command, so that a change of the configuration does not change
  what commands of the past have done.
- Nothing ends by itself: `due` says what time has brought about, as commands to apply.
"""

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
    Outcome,
    Reclaim,
    Renew,
    Renewed,
    Stamp,
)
from kvblock_service.core.engine import Engine
from kvblock_service.core.pool_data import PoolData


def attach(pool: PoolData, command: Attach, stamp: Stamp) -> Outcome:
    """Begin a lease or resume one."""
    engine = pool.engines.get(command.engine)
    current = engine.epoch if engine else 0
    resumed = bool(current) and command.epoch == current
    if not (resumed or command.ttl_ms):
        return Fenced(current)
    if engine is not None and current and not resumed:
        if not command.takeover:
            if command.epoch:
                return Fenced(current)
            return EngineHeld(max(0, engine.deadline_ms - stamp.now_ms))
        _vacate(pool, engine, command.quarantine_ms, stamp)
        engine = pool.enter(command.engine)
    elif command.epoch and not resumed and not command.takeover:
        return Fenced(0)
    if engine is None:
        if len(pool.engines) >= pool.bounds.engines_max:
            return LimitReached("engines_max", pool.bounds.engines_max)
        engine = pool.enter(command.engine)
    if not resumed:
        pool.last_epoch += 1
        engine.epoch = pool.last_epoch
        pool.revision += 1
    engine.ttl_ms = command.ttl_ms or engine.ttl_ms
    engine.deadline_ms = stamp.now_ms + engine.ttl_ms
    return Attached(
        engine.epoch,
        engine.ttl_ms,
        engine.held,
        len(engine.tables),
        engine.last_step_id,
        resumed,
        len(engine.acquired),
    )


def renew(pool: PoolData, command: Renew, stamp: Stamp) -> Outcome:
    """Let a lease last longer. It is no change that has to outlive the server."""
    engine = _leased(pool, command)
    if isinstance(engine, Fenced):
        return engine
    engine.deadline_ms = stamp.now_ms + engine.ttl_ms
    return Renewed(engine.ttl_ms)


def detach(pool: PoolData, command: Detach, _: Stamp) -> Outcome:
    """End a lease and free the engine's blocks."""
    engine = _leased(pool, command)
    if isinstance(engine, Fenced):
        return engine
    count = pool.blocks.free_all(engine)
    _end(pool, engine)
    pool.revision += 1
    return Freed(count)


def expire(pool: PoolData, command: Expire, stamp: Stamp) -> Outcome:
    """End a lease that has run out."""
    engine = _leased(pool, command)
    if isinstance(engine, Fenced):
        return engine
    pool.expired_total += 1
    pool.revision += 1
    return Freed(_vacate(pool, engine, command.quarantine_ms, stamp))


def reclaim(pool: PoolData, command: Reclaim, stamp: Stamp) -> Outcome:
    """Take an engine's blocks away; its epoch, when one is named, must be the one meant."""
    engine = _leased(pool, command) if command.epoch else pool.engines.get(command.engine)
    if isinstance(engine, Fenced):
        return engine
    if engine is None:
        return Freed(0)
    pool.revision += 1
    return Freed(_vacate(pool, engine, command.quarantine_ms, stamp))


def end_quarantine(pool: PoolData, command: EndQuarantine, _: Stamp) -> Outcome:
    """Let the blocks of a batch be free."""
    count = pool.blocks.end_quarantine(command.batch)
    if count:
        pool.revision += 1
    return Freed(count)


def due(pool: PoolData, now_ms: int, quarantine_ms: int | None) -> list[Command]:
    """The leases that have run out and the batches that have waited long enough.

    `quarantine_ms` is how long the blocks of an expired lease are to wait; None: for its TTL.
    """
    batches = pool.blocks.quarantine.items()
    commands: list[Command] = [
        EndQuarantine(number) for number, batch in batches if batch.due_ms <= now_ms
    ]
    commands += [
        Expire(engine.name, engine.epoch, engine.ttl_ms if quarantine_ms is None else quarantine_ms)
        for engine in pool.engines.values()
        if engine.epoch and engine.deadline_ms <= now_ms
    ]
    return commands


def begin_anew(pool: PoolData, now_ms: int) -> None:
    """Give every lease its full TTL from now, and every batch its full time.

    For a pool whose server was not there: restarted, so that its clock is another one, or stopped,
    as perhaps the whole host was, with writes on their way. No record needs this: that a batch's
    time has passed is a command of its own, and a restart begins anew by itself.
    """
    full_ttl(pool, now_ms)
    quarantine = pool.blocks.quarantine
    for number, batch in list(quarantine.items()):
        quarantine[number] = batch._replace(due_ms=now_ms + batch.period_ms)


def full_ttl(pool: PoolData, now_ms: int) -> None:
    """Give every lease its full TTL from now: the server could not listen for renewals."""
    for engine in pool.engines.values():
        engine.deadline_ms = now_ms + engine.ttl_ms


def since_heartbeat_ms(engine: Engine, now_ms: int) -> int:
    """How long ago the last heartbeat of an engine that has a lease was."""
    return max(0, now_ms - (engine.deadline_ms - engine.ttl_ms))


def _leased(pool: PoolData, command: Renew | Detach | Expire | Reclaim) -> Engine | Fenced:
    """The engine whose lease a command names by its epoch."""
    engine = pool.engines.get(command.engine)
    if engine is None or not engine.epoch or engine.epoch != command.epoch:
        return Fenced(engine.epoch if engine else 0)
    return engine


def _vacate(pool: PoolData, engine: Engine, quarantine_ms: int, stamp: Stamp) -> int:
    """End an engine, whose blocks go into quarantine; answer how many they are."""
    count = pool.blocks.withdraw(engine, quarantine_ms, stamp.now_ms)
    _end(pool, engine)
    return count


def _end(pool: PoolData, engine: Engine) -> None:
    """End an engine; a later one of its name has nothing to do with it."""
    del pool.engines[engine.name]
    pool.cache.end(engine.name)
