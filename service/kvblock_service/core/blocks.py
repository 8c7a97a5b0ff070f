"""Who has which block of a pool, and which blocks are free.

Rules:
- A block is free, in exactly one table, acquired by one engine, in quarantine, or reserved: free +
  held + quarantined + reserved = total, at every moment. Blocks in tables and acquired blocks are
  held.
- Blocks move by `take`, `free`, `trim`, `acquire`, `release`, `free_all`, `withdraw` and
  `end_quarantine`; nothing else changes a table, acquired blocks, the free list, a grant, or a
  counter of blocks.
- `grants[block]` is who was granted the block last, as `acquired` says; it covers the blocks that
  were ever handed out. The reserved ones before them are granted to NOBODY.
- A batch in quarantine has at least one block.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from kvblock_service.core.acquired import Found, Grant, Grants, grant_of
from kvblock_service.core.commands import Stamp
from kvblock_service.core.engine import Engine, Table, blocks_of
from kvblock_service.core.free_list import FreeList

NOBODY = Grant("", 0, "")
"""Whom reserved blocks are granted to; no engine has an empty name."""


class Batch(NamedTuple):
    """Blocks that wait, since their engine vanished, until `due_ms` on the monotonic clock.

    `period_ms` is how long they wait in all; `engine` and `epoch` had them last.
    """

    blocks: "array[int]"
    due_ms: int
    period_ms: int
    engine: str
    epoch: int


class Blocks:
    """The blocks of one pool; the counters count blocks since the pool was made."""

    __slots__ = (
        *("allocated_total", "free_list", "freed_total", "grants"),
        *("last_batch", "quarantine", "quarantined", "reclaimed_total"),
    )

    def __init__(self, total: int, reserved: int = 0) -> None:
        self.free_list = FreeList(total, reserved)
        self.grants: Grants = [NOBODY] * reserved
        self.quarantine: dict[int, Batch] = {}
        self.quarantined = 0
        self.last_batch = 0
        self.allocated_total = 0
        self.freed_total = 0
        self.reclaimed_total = 0

    @property
    def held(self) -> int:
        """Blocks in tables, and acquired ones."""
        return self.allocated_total - self.freed_total - self.reclaimed_total

    def grant_of(self, block: int) -> Grant:
        """Who was granted a block last that was ever handed out."""
        return grant_of(self.grants[block])

    def available(self, engine: str) -> int:
        """How many blocks an engine of that name can take now: all that are free."""
        del engine
        return len(self.free_list)

    def take(
        self,
        engine: Engine,
        sequence_ids: Sequence[int],
        num_blocks: Sequence[int],
        count: int,
        stamp: Stamp,
    ) -> list[int]:
        """Append free blocks to an engine's tables, and answer them flat, in table order.

        `num_blocks` runs parallel to `sequence_ids`; empty means one block each. `count` is how
        many that are in all: the caller has made sure that as many are available.
        """
        blocks, grant = self._grant(engine, count, stamp)
        grants = self.grants
        for block in blocks:
            grants[block] = grant
        runs = _runs(blocks, num_blocks) if num_blocks else blocks
        tables = engine.tables
        before = len(tables)
        found = list(map(tables.setdefault, sequence_ids, runs))
        if len(tables) - before < len(runs):
            _extend(tables, sequence_ids, found, runs)
        return blocks

    def acquire(self, engine: Engine, count: int, stamp: Stamp) -> list[int]:
        """Let an engine hold free blocks outside any table, one at least; as many are available."""
        blocks, grant = self._grant(engine, count, stamp)
        engine.acquired.add(blocks, grant, self.grants)
        return blocks

    def release(self, engine: Engine, blocks: list[int], found: Found) -> None:
        """Free acquired blocks, in order, that the engine's `acquired.find` has found."""
        engine.acquired.remove(blocks, found, self.grants)
        self.free_list.give_numbers(blocks)
        engine.held -= len(blocks)
        self.freed_total += len(blocks)

    def free_all(self, engine: Engine) -> int:
        """Free all that an engine has: its tables, then its acquired blocks; answer the count."""
        count = engine.held
        self.free(engine, list(engine.tables))
        acquired = engine.acquired.clear(self.grants)
        self.free_list.give_blocks(acquired)
        engine.held -= len(acquired)
        self.freed_total += len(acquired)
        return count

    def trim(
        self,
        engine: Engine,
        sequence_ids: Sequence[int],
        heads: Sequence[int],
        tails: Sequence[int],
    ) -> list[int]:
        """Free blocks at the heads and the tails of tables, in order, no more than they have.

        `heads` and `tails` run parallel to `sequence_ids`; empty means 0 each. A table that has
        none left ends. Answers how many blocks each sequence gave back.
        """
        freed = array("I")
        counts = []
        none = (0,) * len(sequence_ids)
        for sequence_id, head, tail in zip(sequence_ids, heads or none, tails or none, strict=True):
            before = len(freed)
            freed.extend(_trimmed(engine, sequence_id, head, tail))
            counts.append(len(freed) - before)
        self.free_list.give_blocks(freed)
        engine.held -= len(freed)
        self.freed_total += len(freed)
        return counts

    def free(self, engine: Engine, sequence_ids: Sequence[int]) -> list[int]:
        """Free the tables of sequences in order; answer how many blocks each one had."""
        freed = self.free_list.freed
        if engine.first_indexes:
            for sequence_id in sequence_ids:
                engine.first_indexes.pop(sequence_id, None)
        before = len(freed)
        tables = list(map(engine.tables.pop, sequence_ids, [None] * len(sequence_ids)))
        counts = self.free_list.give(tables)
        count = len(freed) - before
        engine.held -= count
        self.freed_total += count
        return counts

    def withdraw(self, engine: Engine, period_ms: int, now_ms: int) -> int:
        """Take all blocks from an engine: into quarantine, or freed if the period is 0."""
        blocks = array("I")
        for table in engine.tables.values():
            blocks.extend(blocks_of(table))
        blocks.extend(engine.acquired.clear(self.grants))
        count = len(blocks)
        engine.tables.clear()
        engine.first_indexes.clear()
        engine.held = 0
        self.reclaimed_total += count
        if not period_ms:
            self.free_list.give_blocks(blocks)
        elif count:
            self.last_batch += 1
            batch = Batch(blocks, now_ms + period_ms, period_ms, engine.name, engine.epoch)
            self.quarantine[self.last_batch] = batch
            self.quarantined += count
        return count

    def end_quarantine(self, number: int) -> int:
        """Let the blocks of a batch be free; answer how many they are, 0 for an unknown batch."""
        batch = self.quarantine.pop(number, None)
        if batch is None:
            return 0
        self.free_list.give_blocks(batch.blocks)
        self.quarantined -= len(batch.blocks)
        return len(batch.blocks)

    def _grant(self, engine: Engine, count: int, stamp: Stamp) -> tuple[list[int], Grant]:
        """Free blocks for an engine, and their grant, which each of them still has to be given."""
        blocks = self.free_list.take(count)
        # One for all blocks of the command: it costs them 8 bytes each.
        grant = Grant(engine.name, stamp.wall_ms, stamp.trace_id)
        unused = self.free_list.fresh - len(self.grants)
        if unused:
            self.grants.extend([grant] * unused)
        engine.held += count
        self.allocated_total += count
        return blocks, grant


def length_after(table: Table, head: int, tail: int) -> int:
    """How many blocks a table has left when it is trimmed by so many at its ends."""
    return max(0, len(blocks_of(table)) - head - tail)


def _trimmed(engine: Engine, sequence_id: int, head: int, tail: int) -> Sequence[int]:
    """Take blocks out of a table, and answer them in table order."""
    table = engine.tables.get(sequence_id)
    if table is None or not (head or tail):
        return ()
    if not length_after(table, head, tail):
        del engine.tables[sequence_id]
        engine.first_indexes.pop(sequence_id, None)
        return blocks_of(table)
    assert not isinstance(table, int), "a table of one block cannot be trimmed and stay"
    last = len(table) - tail
    trimmed = table[:head] + table[last:]
    del table[last:]
    if head:
        del table[:head]
        engine.first_indexes[sequence_id] = engine.first_indexes.get(sequence_id, 0) + head
    return trimmed


def _runs(blocks: list[int], counts: Sequence[int]) -> list[Table]:
    """Cut blocks into tables of these lengths."""
    packed = array("I", blocks)
    runs: list[Table] = []
    start = 0
    for count in counts:
        runs.append(packed[start : start + count])
        start += count
    return runs


def _extend(
    tables: dict[int, Table],
    sequence_ids: Sequence[int],
    found: Sequence[Table],
    runs: Sequence[Table],
) -> None:
    """Append its run to each table that was there before; `found` are the tables as they are."""
    for sequence_id, table, run in zip(sequence_ids, found, runs, strict=True):
        # A run has blocks that no table had: what is the same object was put there just now.
        if table is run:
            continue
        if isinstance(table, int):
            tables[sequence_id] = array("I", (table, *blocks_of(run)))
        elif isinstance(run, int):
            table.append(run)
        else:
            table.extend(run)
