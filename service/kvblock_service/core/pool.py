"""One pool of blocks: who holds which block, and the commands that change it.

Rules:
- A block is free, or in exactly one table: free + held = total, at every moment.
- `holders[block]` is the number of the engine that holds the block, or held it last;
  it covers the blocks that were ever handed out.
- A table is in `Engine.tables` exactly while it has at least one block. A table of one block may
  be that block's number itself, which costs nothing to make; every other one is an array.
- An engine is in `engines` exactly while it has at least one table; its number is its alone.
- A command takes effect whole or not at all, except that the frees of a step stay done when its
  allocations are refused.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from kvblock_service.core.commands import (
    Allocate,
    Command,
    Free,
    Freed,
    Granted,
    LimitReached,
    Outcome,
    RefusalReason,
    Refused,
    Release,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.free_list import FreeList

Table: TypeAlias = "int | array[int]"


class Geometry(NamedTuple):
    """What a pool is: `total_blocks` blocks of `block_size` token slots on device `device_id`."""

    name: str
    total_blocks: int
    block_size: int
    device_id: int


class Bounds(NamedTuple):
    """How much state a pool may hold."""

    engines_max: int
    sequences_per_engine_max: int


class Engine:
    """One engine's block tables by sequence id, and how many blocks are in them."""

    __slots__ = ("held", "name", "number", "tables")

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.tables: dict[int, Table] = {}
        self.held = 0


class Pool:
    """The state machine: `apply` takes a command and answers its outcome."""

    def __init__(self, geometry: Geometry, bounds: Bounds) -> None:
        self.geometry = geometry
        self.bounds = bounds
        self.free_list = FreeList(geometry.total_blocks)
        self.engines: dict[str, Engine] = {}
        self.revision = 0
        self.allocated_total = 0
        self.freed_total = 0
        self.refused_total = dict.fromkeys(RefusalReason, 0)
        self.holders: list[int] = []
        self._spare_numbers: list[int] = []
        self._next_number = 1
        self._appliers: dict[type, Callable[[Any], Outcome]] = {
            Allocate: self._allocate,
            Free: self._free,
            Release: self._release,
            Step: self._step,
        }

    def apply(self, command: Command) -> Outcome:
        """Carry out one command."""
        return self._appliers[type(command)](command)

    @property
    def held(self) -> int:
        """Blocks in tables."""
        return self.allocated_total - self.freed_total

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's table in table order, or None when it has none."""
        owner = self.engines.get(engine)
        table = owner.tables.get(sequence_id) if owner else None
        return None if table is None else list(blocks_of(table))

    def _allocate(self, command: Allocate) -> Granted | Refused | LimitReached:
        name, sequence_id, need = command
        if need > len(self.free_list):
            return self._refuse(need)
        engine = self.engines.get(name)
        if engine is None or sequence_id not in engine.tables:
            crossed = self._crossed(engine, (), (sequence_id,))
            if crossed:
                return crossed
        engine = engine or self._enter(name)
        blocks = self._take(engine, need)
        self._append(engine, (sequence_id,), blocks if need == 1 else (array("I", blocks),))
        self.revision += 1
        return Granted(blocks, len(blocks_of(engine.tables[sequence_id])))

    def _free(self, command: Free) -> Freed:
        engine = self.engines.get(command.engine)
        if engine is None or command.sequence_id not in engine.tables:
            return Freed(0)
        (count,) = self._give_back(engine, (command.sequence_id,))
        self._leave_if_empty(engine)
        self.revision += 1
        return Freed(count)

    def _release(self, command: Release) -> Freed:
        engine = self.engines.get(command.engine)
        if engine is None:
            return Freed(0)
        counts = self._give_back(engine, list(engine.tables))
        self._leave_if_empty(engine)
        self.revision += 1
        return Freed(sum(counts))

    def _step(self, command: Step) -> Stepped | LimitReached:
        name, free_ids, allocate_ids, num_blocks, policy = command
        engine = self.engines.get(name)
        crossed = self._crossed(engine, free_ids, allocate_ids)
        if crossed:
            return crossed
        before = self.allocated_total + self.freed_total
        engine = engine or self._enter(name)
        counts = self._give_back(engine, free_ids)
        granted, need, refused = self._fit(allocate_ids, num_blocks, policy)
        blocks = self._take(engine, need)
        if granted < len(allocate_ids):
            allocate_ids = allocate_ids[:granted]
            num_blocks = num_blocks[:granted]
        self._append(engine, allocate_ids, _runs(blocks, num_blocks))
        self._leave_if_empty(engine)
        if self.allocated_total + self.freed_total != before:
            self.revision += 1
        return Stepped(blocks, granted, refused, counts, len(self.free_list))

    def _fit(
        self, allocate_ids: Sequence[int], num_blocks: Sequence[int], policy: StepPolicy
    ) -> tuple[int, int, Refused | None]:
        """How many entries can be served, the blocks they need, and why the next one cannot."""
        free = len(self.free_list)
        count = len(allocate_ids)
        need = sum(num_blocks) if num_blocks else count
        if need <= free:
            return count, need, None
        if policy is StepPolicy.ALL_OR_NOTHING:
            return 0, 0, self._refuse(need)
        if not num_blocks:
            return free, free, self._refuse(1, free_after=0)
        need = 0
        for served, wanted in enumerate(num_blocks):
            if need + wanted > free:
                return served, need, self._refuse(wanted, free_after=free - need)
            need += wanted
        raise AssertionError("a step that does not fit has an entry that does not fit")

    def _refuse(self, need: int, free_after: int | None = None) -> Refused:
        exceeds = need > self.geometry.total_blocks
        reason = RefusalReason.EXCEEDS_POOL if exceeds else RefusalReason.POOL_EXHAUSTED
        self.refused_total[reason] += 1
        return Refused(reason, len(self.free_list) if free_after is None else free_after, need)

    def _take(self, engine: Engine, count: int) -> list[int]:
        """Take `count` free blocks for an engine; the caller puts them into its tables."""
        blocks = self.free_list.take(count)
        holders = self.holders
        number = engine.number
        unused = self.free_list.fresh - len(holders)
        if unused:
            holders.extend([0] * unused)
        for block in blocks:
            holders[block] = number
        engine.held += count
        self.allocated_total += count
        return blocks

    def _give_back(self, engine: Engine, sequence_ids: Sequence[int]) -> list[int]:
        """Free sequences in order; answer how many blocks each one had."""
        tables = list(map(engine.tables.pop, sequence_ids, [None] * len(sequence_ids)))
        counts = self.free_list.give(tables)
        count = sum(counts)
        engine.held -= count
        self.freed_total += count
        return counts

    @staticmethod
    def _append(engine: Engine, sequence_ids: Sequence[int], runs: Sequence[Table]) -> None:
        """Append to each sequence's table its run of blocks."""
        tables = engine.tables
        if tables.keys().isdisjoint(sequence_ids):
            tables.update(zip(sequence_ids, runs, strict=True))
            return
        for sequence_id, run in zip(sequence_ids, runs, strict=True):
            table = tables.get(sequence_id)
            if table is None:
                tables[sequence_id] = run
            elif isinstance(table, int):
                tables[sequence_id] = array("I", (table, *blocks_of(run)))
            elif isinstance(run, int):
                table.append(run)
            else:
                table.extend(run)

    def _crossed(
        self, engine: Engine | None, free_ids: Sequence[int], allocate_ids: Sequence[int]
    ) -> LimitReached | None:
        """The limit that a command would cross if all its allocations were granted."""
        bounds = self.bounds
        if engine is None:
            if allocate_ids and len(self.engines) >= bounds.engines_max:
                return LimitReached("engines_max", bounds.engines_max)
            tables: dict[int, Table] = {}
        else:
            tables = engine.tables
        if len(tables) + len(allocate_ids) <= bounds.sequences_per_engine_max:
            return None
        left = tables.keys() - free_ids
        if len(left.union(allocate_ids)) <= bounds.sequences_per_engine_max:
            return None
        return LimitReached("sequences_per_engine_max", bounds.sequences_per_engine_max)

    def _enter(self, name: str) -> Engine:
        if self._spare_numbers:
            number = self._spare_numbers.pop()
        else:
            number = self._next_number
            self._next_number += 1
        engine = self.engines[name] = Engine(name, number)
        return engine

    def _leave_if_empty(self, engine: Engine) -> None:
        if not engine.tables:
            del self.engines[engine.name]
            self._spare_numbers.append(engine.number)


def blocks_of(table: Table) -> Sequence[int]:
    """The blocks of a table, in table order."""
    return (table,) if isinstance(table, int) else table


def _runs(blocks: list[int], counts: Sequence[int]) -> Sequence[Table]:
    """Cut blocks into tables of these lengths; without any, into tables of one block."""
    if not counts:
        return blocks
    packed = array("I", blocks)
    runs = []
    start = 0
    for count in counts:
        runs.append(packed[start : start + count])
        start += count
    return runs
