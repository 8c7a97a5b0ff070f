"""One pool of blocks: who holds which block, and the commands that change it.

Rules:
- A block is free, in exactly one table, or in quarantine: free + held + quarantined = total, at
  every moment.
- `holders[block]` is who was granted the block last; it covers the blocks that were ever handed
  out.
- A sequence is in `Engine.tables` exactly while its table has a block. An engine is in `engines`
  exactly while it has a table or a lease.
- A command takes effect whole or not at all, except that the frees of a step stay done when its
  allocations are refused. A command with a request_id or a step_id takes effect once.
- Every command of an engine with a lease lets the lease last for a full TTL from then on.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kvblock_service.core import leases
from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Fenced,
    Free,
    Freed,
    Granted,
    IdReused,
    LimitReached,
    Outcome,
    Reclaim,
    RefusalReason,
    Refused,
    Renew,
    Stamp,
    Step,
    StepOutOfOrder,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.engine import Batch, Engine, Holder, Table, blocks_of
from kvblock_service.core.free_list import FreeList
from kvblock_service.core.memory import Known, Memory


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
    request_ids_max: int


class Pool:
    """The state machine: `apply` takes a command with its stamp and answers its outcome.

    Epochs are greater than `epoch_floor`, so that those of an earlier life of the pool are stale.
    """

    def __init__(self, geometry: Geometry, bounds: Bounds, epoch_floor: int = 0) -> None:
        self.geometry = geometry
        self.bounds = bounds
        self.free_list = FreeList(geometry.total_blocks)
        self.engines: dict[str, Engine] = {}
        self.holders: list[Holder] = []
        self.quarantine: dict[int, Batch] = {}
        self.quarantined = 0
        self.last_batch = 0
        self.last_epoch = epoch_floor
        self.memory = Memory(bounds.request_ids_max)
        self.repeated = False
        self.revision = 0
        self.allocated_total = 0
        self.freed_total = 0
        self.reclaimed_total = 0
        self.expired_total = 0
        self.refused_total = dict.fromkeys(RefusalReason, 0)
        self._appliers: dict[type, Callable[[Any, Stamp], Outcome]] = {
            Allocate: self._allocate,
            Free: self._free,
            Step: self._step,
            Attach: lambda command, stamp: leases.attach(self, command, stamp),
            Renew: lambda command, stamp: leases.renew(self, command, stamp),
            Detach: lambda command, stamp: leases.detach(self, command, stamp),
            Expire: lambda command, stamp: leases.expire(self, command, stamp),
            Reclaim: lambda command, stamp: leases.reclaim(self, command, stamp),
            EndQuarantine: lambda command, stamp: leases.end_quarantine(self, command, stamp),
        }

    def apply(self, command: Command, stamp: Stamp) -> Outcome:
        """Carry out one command; `repeated` tells afterwards that it was carried out before."""
        self.repeated = False
        if not command.request_id:
            return self._appliers[type(command)](command, stamp)
        engine = self.engines.get(command.engine)
        if self.memory.is_over(command):
            return Fenced(engine.epoch if engine else 0)
        known = self.memory.get(command)
        if known is not None and self._still_true(known):
            self.repeated = True
            # Being heard of again lets a lease last; who has none, or another one, is no matter.
            self._admit(engine, _epoch_of(known), stamp)
            return known.answer if known.is_of(command) else IdReused("request_id")
        outcome = self._appliers[type(command)](command, stamp)
        # A step that was known by its step_id did nothing, and a restart will not see it.
        if not self.repeated and not isinstance(outcome, REJECTIONS):
            self.memory.put(command, outcome)
        return outcome

    def knows(self, command: Command) -> bool:
        """Whether `apply` would answer a command by its request_id, and change nothing."""
        known = self.memory.get(command) if command.request_id else None
        return known is not None and (self.memory.is_over(command) or self._still_true(known))

    @property
    def held(self) -> int:
        """Blocks in tables."""
        return self.allocated_total - self.freed_total - self.reclaimed_total

    def table(self, engine: str, sequence_id: int) -> list[int] | None:
        """A copy of a sequence's table in table order, or None when it has none."""
        owner = self.engines.get(engine)
        table = owner.tables.get(sequence_id) if owner else None
        return None if table is None else list(blocks_of(table))

    def give_back(self, engine: Engine, sequence_ids: Sequence[int]) -> list[int]:
        """Free sequences in order; answer how many blocks each one had."""
        tables = list(map(engine.tables.pop, sequence_ids, [None] * len(sequence_ids)))
        before = len(self.free_list)
        counts = self.free_list.give(tables)
        count = len(self.free_list) - before
        engine.held -= count
        self.freed_total += count
        return counts

    def _still_true(self, known: Known) -> bool:
        """Whether a remembered answer still tells its engine what it has."""
        if isinstance(known.command, Detach | Reclaim):
            return True
        engine = self.engines.get(known.command.engine)
        return _epoch_of(known) == (engine.epoch if engine else 0)

    def _allocate(
        self, command: Allocate, stamp: Stamp
    ) -> Granted | Refused | LimitReached | Fenced:
        name, epoch, _, sequence_id, need = command
        engine = self.engines.get(name)
        fenced = self._admit(engine, epoch, stamp)
        if fenced:
            return fenced
        if need > len(self.free_list):
            return self._refuse(engine, need)
        if engine is None or sequence_id not in engine.tables:
            crossed = self._crossed(engine, (), (sequence_id,))
            if crossed:
                return crossed
        engine = engine or self._enter(name)
        blocks = self._take(engine, need, stamp)
        self._append(engine, (sequence_id,), blocks if need == 1 else (array("I", blocks),))
        self.revision += 1
        return Granted(blocks, len(blocks_of(engine.tables[sequence_id])))

    def _free(self, command: Free, stamp: Stamp) -> Freed | Fenced:
        engine = self.engines.get(command.engine)
        fenced = self._admit(engine, command.epoch, stamp)
        if fenced:
            return fenced
        if engine is None or command.sequence_id not in engine.tables:
            return Freed(0)
        (count,) = self.give_back(engine, (command.sequence_id,))
        self._leave_if_empty(engine)
        self.revision += 1
        return Freed(count)

    def _step(
        self, command: Step, stamp: Stamp
    ) -> Stepped | LimitReached | Fenced | IdReused | StepOutOfOrder:
        name, epoch, _, step_id, free_ids, allocate_ids, num_blocks, policy = command
        engine = self.engines.get(name)
        fenced = self._admit(engine, epoch, stamp)
        if fenced:
            return fenced
        if step_id and engine is not None:
            last = engine.last_step
            last_id = last[0].step_id if last else 0
            if step_id != last_id + 1:
                if last is None or step_id != last_id:
                    return StepOutOfOrder(last_id + 1)
                self.repeated = True
                return last[1] if last[0] == command else IdReused("step.step_id")
        crossed = self._crossed(engine, free_ids, allocate_ids)
        if crossed:
            return crossed
        before = self.allocated_total + self.freed_total
        engine = engine or self._enter(name)
        counts = self.give_back(engine, free_ids)
        granted, need, refused = self._fit(engine, allocate_ids, num_blocks, policy)
        blocks = self._take(engine, need, stamp)
        if granted < len(allocate_ids):
            allocate_ids = allocate_ids[:granted]
            num_blocks = num_blocks[:granted]
        self._append(engine, allocate_ids, _runs(blocks, num_blocks))
        if self.allocated_total + self.freed_total != before:
            self.revision += 1
        stepped = Stepped(blocks, granted, refused, counts, len(self.free_list))
        if step_id:
            engine.last_step = (command, stepped)
        self._leave_if_empty(engine)
        return stepped

    def _admit(self, engine: Engine | None, epoch: int, stamp: Stamp) -> Fenced | None:
        """Let a command of the engine's epoch pass, and its lease last longer."""
        if engine is None:
            return Fenced(0) if epoch else None
        if engine.epoch != epoch:
            return Fenced(engine.epoch)
        engine.deadline_ms = stamp.now_ms + engine.ttl_ms
        return None

    def _fit(
        self,
        engine: Engine,
        allocate_ids: Sequence[int],
        num_blocks: Sequence[int],
        policy: StepPolicy,
    ) -> tuple[int, int, Refused | None]:
        """How many entries can be served, the blocks they need, and why the next one cannot."""
        free = len(self.free_list)
        count = len(allocate_ids)
        need = sum(num_blocks) if num_blocks else count
        if need <= free:
            return count, need, None
        if policy is StepPolicy.ALL_OR_NOTHING:
            return 0, 0, self._refuse(engine, need)
        if not num_blocks:
            return free, free, self._refuse(engine, 1, free_after=0)
        need = 0
        for served, wanted in enumerate(num_blocks):
            if need + wanted > free:
                return served, need, self._refuse(engine, wanted, free_after=free - need)
            need += wanted
        raise AssertionError("a step that does not fit has an entry that does not fit")

    def _refuse(self, engine: Engine | None, need: int, free_after: int | None = None) -> Refused:
        exceeds = need > self.geometry.total_blocks
        reason = RefusalReason.EXCEEDS_POOL if exceeds else RefusalReason.POOL_EXHAUSTED
        self.refused_total[reason] += 1
        if engine is not None:
            engine.refusals += 1
        return Refused(reason, len(self.free_list) if free_after is None else free_after, need)

    def _take(self, engine: Engine, count: int, stamp: Stamp) -> list[int]:
        """Take `count` free blocks for an engine; the caller puts them into its tables."""
        blocks = self.free_list.take(count)
        holders = self.holders
        # One for all blocks of the command: it costs them 8 bytes each.
        holder = Holder(engine.name, stamp.wall_ms, stamp.trace_id)
        unused = self.free_list.fresh - len(holders)
        if unused:
            holders.extend([holder] * unused)
        for block in blocks:
            holders[block] = holder
        engine.held += count
        self.allocated_total += count
        return blocks

    @staticmethod
    def _append(engine: Engine, sequence_ids: Sequence[int], runs: Sequence[Table]) -> None:
        """Append to each sequence's table its run of blocks."""
        tables = engine.tables
        before = len(tables)
        found = list(map(tables.setdefault, sequence_ids, runs))
        if len(tables) - before == len(runs):
            return
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
        engine = self.engines[name] = Engine(name)
        return engine

    def _leave_if_empty(self, engine: Engine) -> None:
        if not engine.tables and not engine.epoch:
            del self.engines[engine.name]


def _epoch_of(known: Known) -> int:
    """The epoch of the lease that a remembered command was of, or began."""
    command, answer = known
    return answer.epoch if isinstance(answer, Attached) else command.epoch


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
