"""A recount of a pool from its tables and its free list.

Rules:
- Reads only, and trusts no counter: each block is looked up where it must be.
- A clean pool has each block in exactly one place: the reserved ones before all others, one table,
  the acquired blocks of one engine, one batch in quarantine, the stack of freed blocks, or the
  never-used rest; each held block knows the engine that has it; and the counters agree.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kvblock_service.core.acquired import grant_of
from kvblock_service.core.blocks import NOBODY
from kvblock_service.core.engine import Engine, blocks_of
from kvblock_service.core.pool_data import PoolData

VIOLATIONS_MAX = 100
_FREED = 0xFFFFFFFF
_QUARANTINED = 0xFFFFFFFE
_RESERVED = 0xFFFFFFFD


class Report(NamedTuple):
    """What was counted, and what is wrong: sentences, at most VIOLATIONS_MAX of them."""

    free_blocks: int
    held_blocks: int
    quarantined_blocks: int
    sequences: int
    violations: list[str]
    reserved_blocks: int = 0
    acquired_blocks: int = 0


def audit(pool: PoolData) -> Report:
    """Recount every block of a pool."""
    engines = list(pool.engines.values())
    violations: list[str] = []
    for sentence in _violations(pool, engines):
        violations.append(sentence)
        if len(violations) == VIOLATIONS_MAX:
            break
    acquired = sum(len(engine.acquired) for engine in engines)
    never_used = max(0, pool.geometry.total_blocks - pool.blocks.free_list.fresh)
    return Report(
        free_blocks=len(pool.blocks.free_list.freed) + never_used,
        held_blocks=acquired
        + sum(len(blocks_of(table)) for engine in engines for table in engine.tables.values()),
        quarantined_blocks=sum(len(batch.blocks) for batch in pool.blocks.quarantine.values()),
        sequences=sum(len(engine.tables) for engine in engines),
        violations=violations,
        reserved_blocks=pool.geometry.reserved_blocks,
        acquired_blocks=acquired,
    )


def _violations(pool: PoolData, engines: list[Engine]) -> Iterator[str]:
    used = pool.blocks.free_list.fresh
    if used > pool.geometry.total_blocks:
        yield f"{used} blocks were handed out, but the pool has {pool.geometry.total_blocks}"
    reserved = pool.geometry.reserved_blocks
    if used < reserved:
        yield f"the never-used blocks begin with {used}, but {reserved} are reserved"
    granted = len(pool.blocks.grants)
    if granted != used:
        yield f"there are grants of {granted} blocks, but {used} were ever handed out"
    for block, granted_to in enumerate(map(grant_of, pool.blocks.grants[:reserved])):
        if granted_to != NOBODY:
            yield f"block {block} is reserved, but was granted to engine {granted_to.engine}"
    places = array("I", [_RESERVED]) * min(reserved, used)
    places.extend(array("I", [0]) * (used - len(places)))
    for number, engine in enumerate(engines, start=1):
        yield from _tables(pool, engine, number, places)
    yield from _quarantine(pool, places)
    for block in pool.blocks.free_list.freed:
        if block >= used:
            yield f"block {block} is on the free stack, but was never handed out"
        elif places[block]:
            yield f"block {block} is on the free stack and {_place(places[block])}"
        else:
            places[block] = _FREED
    for block, place in enumerate(places):
        if not place:
            yield f"block {block} is neither free nor held nor in quarantine"
    counted = sum(engine.held for engine in engines)
    if counted != pool.blocks.held:
        yield f"{pool.blocks.held} blocks are counted as held, but the engines count {counted}"


def _tables(pool: PoolData, engine: Engine, number: int, places: "array[int]") -> Iterator[str]:
    held = 0
    if not engine.tables and not engine.acquired and not engine.epoch:
        yield f"engine {engine.name} has neither a block nor a lease"
    if engine.epoch > pool.last_epoch:
        yield f"engine {engine.name} has epoch {engine.epoch}, which was never handed out"
    for sequence_id, held_as in engine.tables.items():
        table = blocks_of(held_as)
        where = f"the table of sequence {sequence_id} of engine {engine.name}"
        held += len(table)
        if not table:
            yield f"{where} is empty"
        yield from _blocks(pool, engine, number, places, table, f"in {where}")
    for sequence_id in engine.first_indexes.keys() - engine.tables.keys():
        yield f"sequence {sequence_id} of engine {engine.name} was trimmed, but has no table"
    yield from _acquired(pool, engine, number, places)
    held += len(engine.acquired)
    if held != engine.held:
        yield f"engine {engine.name} counts {engine.held} blocks, but has {held}"


def _acquired(pool: PoolData, engine: Engine, number: int, places: "array[int]") -> Iterator[str]:
    acquired = engine.acquired.blocks(pool.blocks.grants)
    yield from _blocks(pool, engine, number, places, acquired, f"acquired by engine {engine.name}")
    if len(acquired) != len(engine.acquired):
        yield (
            f"engine {engine.name} counts {len(engine.acquired)} acquired blocks, but has"
            f" {len(acquired)}"
        )


def _blocks(
    pool: PoolData,
    engine: Engine,
    number: int,
    places: "array[int]",
    blocks: Sequence[int],
    where: str,
) -> Iterator[str]:
    """What is wrong with blocks of an engine, all of which are in one place."""
    grants = pool.blocks.grants
    for block in blocks:
        if block >= len(places):
            yield f"block {block} is {where}, but was never handed out"
            continue
        if places[block]:
            yield f"block {block} is {where} and {_place(places[block])}"
        if block >= len(grants) or pool.blocks.grant_of(block).engine != engine.name:
            yield f"block {block} is {where}, but was granted to another engine"
        places[block] = number


def _quarantine(pool: PoolData, places: "array[int]") -> Iterator[str]:
    for number, batch in pool.blocks.quarantine.items():
        for block in batch.blocks:
            if block >= len(places):
                yield f"block {block} is in quarantine batch {number}, but was never handed out"
            elif places[block]:
                yield f"block {block} is in quarantine batch {number} and {_place(places[block])}"
            else:
                places[block] = _QUARANTINED
    counted = pool.blocks.quarantined
    found = sum(len(batch.blocks) for batch in pool.blocks.quarantine.values())
    if counted != found:
        yield f"{counted} blocks are counted in quarantine, but its batches hold {found}"


def _place(mark: int) -> str:
    if mark == _FREED:
        return "on the free stack"
    if mark == _RESERVED:
        return "reserved"
    return "in quarantine" if mark == _QUARANTINED else f"held by the {mark}. engine"
