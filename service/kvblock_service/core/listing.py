"""What a pool holds: counts of all, and pages of its sequences and of its blocks.

Rules:
- Reads only. A page is of one moment, which its revision names.
- Rows come in a defined order, and a page begins behind a row, so that what comes or goes between
  two pages does not shift the others.
- A page of blocks looks at no more blocks than it may have rows, and goes through the tables of the
  engines on it once: commands wait meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from kvblock_service.core.acquired import Grant
from kvblock_service.core.blocks import Batch
from kvblock_service.core.commands import RefusalReason
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.leases import since_heartbeat_ms
from kvblock_service.core.pool_data import PoolData
from kvblock_service.core.recall import EngineLevel


class EngineState(NamedTuple):
    """What one engine has in a pool.

    `held_blocks` counts its acquired blocks, too. `expires_in_ms` and `since_heartbeat_ms` are of
    its lease: 0 without one. `refusals` are its refused allocations. It lacks `want_blocks`, and
    owes `owed_blocks` of its `idle_blocks`.
    """

    name: str
    held_blocks: int
    sequences: int
    epoch: int
    expires_in_ms: int
    since_heartbeat_ms: int = 0
    refusals: int = 0
    acquired_blocks: int = 0
    want_blocks: int = 0
    idle_blocks: int = 0
    owed_blocks: int = 0


class Recall(NamedTuple):
    """What engines lack and could give back, and what those of them owe that owe something."""

    levels: Sequence[EngineLevel] = ()
    owed: Mapping[str, int] = {}


NO_RECALL = Recall()


class PoolState(NamedTuple):
    """A pool at one moment; `waiting` allocations wait for blocks of it.

    `want_blocks`, `idle_blocks` and `owed_blocks` are those of all engines.
    """

    free_blocks: int
    held_blocks: int
    quarantined_blocks: int
    sequences: int
    allocated_total: int
    freed_total: int
    reclaimed_total: int
    expired_total: int
    refused_total: dict[RefusalReason, int]
    revision: int
    waiting: int
    engines: list[EngineState]
    reserved_blocks: int
    acquired_blocks: int = 0
    want_blocks: int = 0
    idle_blocks: int = 0
    owed_blocks: int = 0


class SequenceRow(NamedTuple):
    """One sequence; rows are ordered by engine name, then id. `blocks` is in table order.

    `first_index` is how many blocks its table has dropped at the head so far.
    """

    engine: str
    sequence_id: int
    num_blocks: int
    blocks: Sequence[int] = ()
    first_index: int = 0


class SequencePage(NamedTuple):
    """Sequences at one revision; `more`: whether others follow."""

    rows: list[SequenceRow]
    more: bool
    revision: int


class BlockState(Enum):
    """Where a block is; the values are those of the wire."""

    FREE = 1
    HELD = 2
    QUARANTINED = 3
    NEVER_USED = 4
    RESERVED = 5


class Wanted(NamedTuple):
    """Which blocks are wanted; what is empty does not narrow them.

    `engine` holds them, or lost them into quarantine. `numbers` ascend; blocks that were never used
    are only among them.
    """

    engine: str = ""
    numbers: Sequence[int] = ()
    states: Sequence[BlockState] = ()


class BlockRow(NamedTuple):
    """One block and its last grant, None when it was never granted, as a reserved one never is.

    `sequence_id` is that of the table it is in; None for a held block: it is an acquired one.
    `ends_in_ms` is when its quarantine ends.
    """

    number: int
    state: BlockState
    grant: Grant | None
    sequence_id: int | None = None
    ends_in_ms: int | None = None


class BlockPage(NamedTuple):
    """Blocks at one revision.

    `last` is the last one that was looked at, None when no more follow.
    """

    rows: list[BlockRow]
    last: int | None
    revision: int


class _Acquired(Enum):
    """The place of an acquired block."""

    ACQUIRED = 1


_Place: TypeAlias = int | Batch | _Acquired | None
"""A sequence id, a batch in quarantine, outside any table, or none of these: the block is free."""


def state(pool: PoolData, waiting: int, now_ms: int, recall: Recall = NO_RECALL) -> PoolState:
    """The counts of a pool, and its engines in no order."""
    blocks = pool.blocks
    levels = {level.name: level for level in recall.levels}
    none = EngineLevel("", 0, 0, 0)
    engines = [
        EngineState(
            name,
            engine.held,
            len(engine.tables),
            engine.epoch,
            max(0, engine.deadline_ms - now_ms) if engine.epoch else 0,
            since_heartbeat_ms(engine, now_ms) if engine.epoch else 0,
            engine.refusals,
            len(engine.acquired),
            levels.get(name, none).demand,
            levels.get(name, none).idle,
            recall.owed.get(name, 0),
        )
        for name, engine in pool.engines.items()
    ]
    return PoolState(
        free_blocks=len(blocks.free_list),
        held_blocks=blocks.held,
        quarantined_blocks=blocks.quarantined,
        sequences=sum(engine.sequences for engine in engines),
        allocated_total=blocks.allocated_total,
        freed_total=blocks.freed_total,
        reclaimed_total=blocks.reclaimed_total,
        expired_total=pool.expired_total,
        refused_total=dict(pool.refused_total),
        revision=pool.revision,
        waiting=waiting,
        engines=engines,
        reserved_blocks=pool.geometry.reserved_blocks,
        acquired_blocks=sum(engine.acquired_blocks for engine in engines),
        want_blocks=sum(level.demand for level in recall.levels),
        idle_blocks=sum(level.idle for level in recall.levels),
        owed_blocks=sum(recall.owed.values()),
    )


def sequences(
    pool: PoolData, only: str, after: tuple[str, int] | None, count: int, numbers_max: int = 0
) -> SequencePage:
    """Up to `count` sequences behind `after`, of one engine or (empty `only`) of all.

    With `numbers_max` rows have their blocks, and the page ends with the row that reaches it.
    """
    rows: list[SequenceRow] = []
    numbers = 0
    for name, engine in sorted(pool.engines.items()):
        if (only and name != only) or (after and name < after[0]):
            continue
        floor = after[1] if after and name == after[0] else -1
        for sequence_id in sorted(one for one in engine.tables if one > floor):
            if len(rows) == count or (numbers_max and numbers >= numbers_max):
                return SequencePage(rows, True, pool.revision)
            table = blocks_of(engine.tables[sequence_id])
            numbers += len(table)
            blocks = list(table) if numbers_max else ()
            first_index = engine.first_indexes.get(sequence_id, 0)
            rows.append(SequenceRow(name, sequence_id, len(table), blocks, first_index))
    return SequencePage(rows, False, pool.revision)


def blocks(pool: PoolData, wanted: Wanted, after: int, count: int, now_ms: int) -> BlockPage:
    """The wanted ones among the next `count` blocks behind `after` (-1: from the first on)."""
    numbers = _candidates(pool, wanted, after, count + 1)
    more = len(numbers) > count
    del numbers[count:]
    places = _places(pool, numbers)
    rows = [_row(pool, number, places[number], now_ms) for number in numbers]
    if wanted.states:
        rows = [row for row in rows if row.state in wanted.states]
    if wanted.engine:
        taken = (BlockState.HELD, BlockState.QUARANTINED)
        rows = [
            row
            for row in rows
            if row.state in taken and row.grant and row.grant.engine == wanted.engine
        ]
    return BlockPage(rows, numbers[-1] if more else None, pool.revision)


def _candidates(pool: PoolData, wanted: Wanted, after: int, count: int) -> list[int]:
    """The next `count` blocks that may be wanted, whatever their states."""
    if wanted.numbers:
        return [number for number in wanted.numbers if number > after][:count]
    if wanted.engine:
        return sorted(number for number in _had(pool, wanted.engine) if number > after)[:count]
    return list(range(after + 1, min(after + 1 + count, pool.blocks.free_list.fresh)))


def _had(pool: PoolData, name: str) -> Iterator[int]:
    """The blocks that an engine holds, or lost into quarantine."""
    engine = pool.engines.get(name)
    for table in engine.tables.values() if engine else ():
        yield from blocks_of(table)
    yield from engine.acquired.blocks(pool.blocks.grants) if engine else ()
    for batch in pool.blocks.quarantine.values():
        if batch.engine == name:
            yield from batch.blocks


def _places(pool: PoolData, numbers: list[int]) -> dict[int, _Place]:
    places: dict[int, _Place] = dict.fromkeys(numbers)
    used = pool.blocks.free_list.fresh
    for name in dict.fromkeys(
        pool.blocks.grant_of(number).engine for number in numbers if number < used
    ):
        engine = pool.engines.get(name)
        for sequence_id, table in engine.tables.items() if engine else ():
            for block in blocks_of(table):
                if block in places:
                    places[block] = sequence_id
        for block in engine.acquired.blocks(pool.blocks.grants) if engine else ():
            if block in places:
                places[block] = _Acquired.ACQUIRED
    for batch in pool.blocks.quarantine.values():
        for block in batch.blocks:
            if block in places:
                places[block] = batch
    return places


def _row(pool: PoolData, number: int, place: _Place, now_ms: int) -> BlockRow:
    if number < pool.geometry.reserved_blocks:
        return BlockRow(number, BlockState.RESERVED, None)
    if number >= pool.blocks.free_list.fresh:
        return BlockRow(number, BlockState.NEVER_USED, None)
    grant = pool.blocks.grant_of(number)
    if place is None:
        return BlockRow(number, BlockState.FREE, grant)
    if isinstance(place, Batch):
        ends_in_ms = max(0, place.due_ms - now_ms)
        return BlockRow(number, BlockState.QUARANTINED, grant, ends_in_ms=ends_in_ms)
    sequence_id = None if isinstance(place, _Acquired) else place
    return BlockRow(number, BlockState.HELD, grant, sequence_id)


def where_is(pool: PoolData, number: int) -> str:
    """Where a block is, and who has it, as the rest of a sentence."""
    if number < pool.geometry.reserved_blocks:
        return "is reserved"
    if number >= pool.blocks.free_list.fresh:
        return "was never used"
    place = _places(pool, [number])[number]
    engine = pool.blocks.grant_of(number).engine
    if place is None:
        return "is free"
    if isinstance(place, Batch):
        return f"is in quarantine, since engine {place.engine!r} has lost it"
    if isinstance(place, _Acquired):
        return f"is acquired by engine {engine!r}"
    return f"is in the table of sequence {place} of engine {engine!r}"
