"""A pool as one would describe it to a newcomer: one list of free blocks, one dict of tables.

It is slow on purpose and shares no idea with the real pool: every block is in the list from the
start, in the order in which it will be handed out.
"""

from collections.abc import Sequence

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


class ModelPool:
    """Answers each command as the contract says."""

    def __init__(self, total: int, engines_max: int, sequences_max: int) -> None:
        self.total = total
        self.engines_max = engines_max
        self.sequences_max = sequences_max
        self.free = list(range(total))
        self.tables: dict[str, dict[int, list[int]]] = {}
        self.revision = 0
        self.allocated = 0
        self.freed = 0
        self.refused = dict.fromkeys(RefusalReason, 0)

    def apply(self, command: Command) -> Outcome:
        before = (self.allocated, self.freed)
        if isinstance(command, Allocate):
            outcome = self.allocate(command)
        elif isinstance(command, Free):
            outcome = Freed(self.give_back(command.engine, command.sequence_id))
        elif isinstance(command, Release):
            held = list(self.tables.get(command.engine, {}))
            outcome = Freed(sum(self.give_back(command.engine, one) for one in held))
        else:
            outcome = self.step(command)
        if (self.allocated, self.freed) != before:
            self.revision += 1
        return outcome

    def allocate(self, command: Allocate) -> Outcome:
        if command.num_blocks > len(self.free):
            return self.refuse(command.num_blocks)
        crossed = self.crossed(command.engine, [], [command.sequence_id])
        if crossed:
            return crossed
        blocks = self.take(command.engine, command.sequence_id, command.num_blocks)
        return Granted(blocks, len(self.tables[command.engine][command.sequence_id]))

    def step(self, command: Step) -> Outcome:
        engine = command.engine
        crossed = self.crossed(engine, command.free_ids, command.allocate_ids)
        if crossed:
            return crossed
        counts = [self.give_back(engine, one) for one in command.free_ids]
        wanted = list(command.num_blocks) or [1] * len(command.allocate_ids)
        if command.policy is StepPolicy.ALL_OR_NOTHING and sum(wanted) > len(self.free):
            return Stepped([], 0, self.refuse(sum(wanted)), counts, len(self.free))
        blocks: list[int] = []
        granted = 0
        refused = None
        for sequence_id, need in zip(command.allocate_ids, wanted, strict=True):
            if need > len(self.free):
                refused = self.refuse(need)
                break
            blocks += self.take(engine, sequence_id, need)
            granted += 1
        return Stepped(blocks, granted, refused, counts, len(self.free))

    def take(self, engine: str, sequence_id: int, count: int) -> list[int]:
        blocks = [self.free.pop(0) for _ in range(count)]
        self.tables.setdefault(engine, {}).setdefault(sequence_id, []).extend(blocks)
        self.allocated += count
        return blocks

    def give_back(self, engine: str, sequence_id: int) -> int:
        tables = self.tables.get(engine, {})
        blocks = tables.pop(sequence_id, [])
        for block in blocks:
            self.free.insert(0, block)
        if not tables:
            self.tables.pop(engine, None)
        self.freed += len(blocks)
        return len(blocks)

    def refuse(self, need: int) -> Refused:
        reason = RefusalReason.EXCEEDS_POOL if need > self.total else RefusalReason.POOL_EXHAUSTED
        self.refused[reason] += 1
        return Refused(reason, len(self.free), need)

    def crossed(
        self, engine: str, free_ids: Sequence[int], allocate_ids: Sequence[int]
    ) -> LimitReached | None:
        if allocate_ids and engine not in self.tables and len(self.tables) >= self.engines_max:
            return LimitReached("engines_max", self.engines_max)
        names = [one for one in self.tables.get(engine, {}) if one not in free_ids]
        names += [one for one in allocate_ids if one not in names]
        if allocate_ids and len(names) > self.sequences_max:
            return LimitReached("sequences_per_engine_max", self.sequences_max)
        return None
