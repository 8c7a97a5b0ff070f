"""Pages of what a pool holds: its sequences, and its blocks with their holders.

Rules:
- Reads only. A page is of one moment, which its revision names.
- Rows come in a defined order, and a page begins behind a row, so that what comes or goes between
  two pages does not shift the others.
- A page of blocks looks at no more blocks than it may have rows, and goes through the tables of the
  engines on it once: commands wait meanwhile.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from kvblock_service.core.engine import Batch, Holder, blocks_of
from kvblock_service.core.pool import Pool


class SequenceRow(NamedTuple):
    """One sequence; rows are ordered by engine name, then id. `blocks` is in table order."""

    engine: str
    sequence_id: int
    num_blocks: int
    blocks: Sequence[int] = ()


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


class Wanted(NamedTuple):
    """Which blocks are wanted; what is empty does not narrow them.

    `engine` holds them, or lost them into quarantine. `numbers` ascend; blocks that were never used
    are only among them.
    """

    engine: str = ""
    numbers: Sequence[int] = ()
    states: Sequence[BlockState] = ()


class BlockRow(NamedTuple):
    """One block: `holder` was granted it last, None when nobody ever was.

    `ends_in_ms` is when its quarantine ends.
    """

    number: int
    state: BlockState
    holder: Holder | None
    sequence_id: int | None = None
    ends_in_ms: int | None = None


class BlockPage(NamedTuple):
    """Blocks at one revision.

    `last` is the last one that was looked at, None when no more follow.
    """

    rows: list[BlockRow]
    last: int | None
    revision: int


_Place: TypeAlias = int | Batch | None
"""A sequence id, a batch in quarantine, or neither: the block is free."""


def sequences(
    pool: Pool, only: str, after: tuple[str, int] | None, count: int, numbers_max: int = 0
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
            rows.append(SequenceRow(name, sequence_id, len(table), blocks))
    return SequencePage(rows, False, pool.revision)


def blocks(pool: Pool, wanted: Wanted, after: int, count: int, now_ms: int) -> BlockPage:
    """The wanted ones among the next `count` blocks behind `after` (-1: from the first on)."""
    numbers = _candidates(pool, wanted, after, count + 1)
    more = len(numbers) > count
    del numbers[count:]
    places = _places(pool, numbers)
    rows = [_row(pool, number, places[number], now_ms) for number in numbers]
    taken = (BlockState.HELD, BlockState.QUARANTINED)
    return BlockPage(
        [
            row
            for row in rows
            if (not wanted.states or row.state in wanted.states)
            and (not wanted.engine or (row.state in taken and _is_of(row, wanted.engine)))
        ],
        numbers[-1] if more else None,
        pool.revision,
    )


def _candidates(pool: Pool, wanted: Wanted, after: int, count: int) -> list[int]:
    """The next `count` blocks that may be wanted, whatever their states."""
    if wanted.numbers:
        return [number for number in wanted.numbers if number > after][:count]
    if wanted.engine:
        return sorted(number for number in _had(pool, wanted.engine) if number > after)[:count]
    return list(range(after + 1, min(after + 1 + count, pool.free_list.fresh)))


def _had(pool: Pool, name: str) -> Iterator[int]:
    """The blocks that an engine holds, or lost into quarantine."""
    engine = pool.engines.get(name)
    for table in engine.tables.values() if engine else ():
        yield from blocks_of(table)
    for batch in pool.quarantine.values():
        if batch.engine == name:
            yield from batch.blocks


def _places(pool: Pool, numbers: list[int]) -> dict[int, _Place]:
    places: dict[int, _Place] = dict.fromkeys(numbers)
    used = pool.free_list.fresh
    for name in dict.fromkeys(pool.holders[number].engine for number in numbers if number < used):
        engine = pool.engines.get(name)
        for sequence_id, table in engine.tables.items() if engine else ():
            for block in blocks_of(table):
                if block in places:
                    places[block] = sequence_id
    for batch in pool.quarantine.values():
        for block in batch.blocks:
            if block in places:
                places[block] = batch
    return places


def _is_of(row: BlockRow, engine: str) -> bool:
    return row.holder is not None and row.holder.engine == engine


def _row(pool: Pool, number: int, place: _Place, now_ms: int) -> BlockRow:
    if number >= pool.free_list.fresh:
        return BlockRow(number, BlockState.NEVER_USED, None)
    holder = pool.holders[number]
    if place is None:
        return BlockRow(number, BlockState.FREE, holder)
    if isinstance(place, Batch):
        ends_in_ms = max(0, place.due_ms - now_ms)
        return BlockRow(number, BlockState.QUARANTINED, holder, ends_in_ms=ends_in_ms)
    return BlockRow(number, BlockState.HELD, holder, place)
