"""A pool as one would describe it to a newcomer: one list of free blocks, one dict of tables.

It is slow on purpose and shares no idea with the real pool: every block is in the list from the
start, in the order in which it will be handed out. It remembers every request for ever.
"""

from collections.abc import Sequence

from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    EngineHeld,
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
    Renewed,
    Step,
    StepOutOfOrder,
    Stepped,
    StepPolicy,
)


def same(before: Command, command: Command) -> bool:
    """Whether a request is the one before; how long blocks would wait is the server's to say."""
    if isinstance(before, Attach | Reclaim) and isinstance(command, type(before)):
        return before._replace(quarantine_ms=0) == command._replace(quarantine_ms=0)
    return type(before) is type(command) and before == command


class Lease:
    """An epoch, when it ends, and the steps that were made under it."""

    def __init__(self, epoch: int, ttl: int, now: int) -> None:
        self.epoch = epoch
        self.ttl = ttl
        self.ends = now + ttl
        self.steps: list[tuple[Step, Outcome]] = []


class ModelPool:
    """Answers each command as the contract says."""

    def __init__(self, total: int, engines_max: int, sequences_max: int) -> None:
        self.total = total
        self.engines_max = engines_max
        self.sequences_max = sequences_max
        self.free = list(range(total))
        self.tables: dict[str, dict[int, list[int]]] = {}
        self.leases: dict[str, Lease] = {}
        self.batches: dict[int, tuple[int, list[int]]] = {}
        self.made_batches = 0
        self.epochs = 0
        self.answers: dict[tuple[str, int, str], tuple[Command, Outcome]] = {}
        self.stale: list[tuple[str, int, str]] = []
        self.now = 0
        self.allocated = self.freed = self.reclaimed = self.expired = 0
        self.refused = dict.fromkeys(RefusalReason, 0)

    def apply(self, command: Command) -> Outcome:
        if command.request_id:
            key = (command.engine, command.epoch, command.request_id)
            if key in self.stale:
                return Fenced(self.epoch(command.engine))
            before, answer = self.answers.get(key, (None, None))
            if before is not None and answer is not None and self.stands(before, answer):
                lease = self.leases.get(command.engine)
                epoch = answer.epoch if isinstance(answer, Attached) else command.epoch
                if lease is not None and lease.epoch == epoch:
                    lease.ends = self.now + lease.ttl
                return answer if same(before, command) else IdReused("request_id")
        outcome = self.carry_out(command)
        if command.request_id and not isinstance(outcome, REJECTIONS):
            self.answers[key] = (command, outcome)
            # What it has replaced may have been stale.
            self.stale = [one for one in self.stale if one != key]
        return outcome

    def stands(self, command: Command, answer: Outcome) -> bool:
        if isinstance(command, Detach | Reclaim):
            return True
        epoch = answer.epoch if isinstance(answer, Attached) else command.epoch
        return epoch == self.epoch(command.engine)

    def epoch(self, engine: str) -> int:
        return self.leases[engine].epoch if engine in self.leases else 0

    def carry_out(self, command: Command) -> Outcome:
        if isinstance(command, EndQuarantine):
            _, blocks = self.batches.pop(command.batch, (0, []))
            self.put_back(blocks)
            return Freed(len(blocks))
        if isinstance(command, Attach):
            return self.attach(command)
        if isinstance(command, Reclaim):
            if command.epoch and command.epoch != self.epoch(command.engine):
                return Fenced(self.epoch(command.engine))
            return Freed(self.vacate(command.engine, command.quarantine_ms))
        if command.epoch != self.epoch(command.engine):
            return Fenced(self.epoch(command.engine))
        lease = self.leases.get(command.engine)
        if isinstance(command, Expire | Detach | Renew) and lease is None:
            return Fenced(0)
        if isinstance(command, Expire):
            self.expired += 1
            return Freed(self.vacate(command.engine, command.quarantine_ms))
        if isinstance(command, Detach):
            ids = list(self.tables.get(command.engine, {}))
            count = sum(self.give_back(command.engine, one) for one in ids)
            del self.leases[command.engine]
            self.end(command.engine)
            return Freed(count)
        if lease is not None:
            lease.ends = self.now + lease.ttl
        if isinstance(command, Renew):
            assert lease is not None
            return Renewed(lease.ttl)
        if isinstance(command, Allocate):
            return self.allocate(command)
        if isinstance(command, Free):
            return Freed(self.give_back(command.engine, command.sequence_id))
        return self.numbered_step(command, lease)

    def attach(self, command: Attach) -> Outcome:
        lease = self.leases.get(command.engine)
        resumed = lease is not None and lease.epoch == command.epoch
        if lease is not None and resumed:
            lease.ttl = command.ttl_ms or lease.ttl
            lease.ends = self.now + lease.ttl
        elif not command.ttl_ms:
            return Fenced(lease.epoch if lease else 0)
        else:
            if lease is not None and not command.takeover:
                left = max(0, lease.ends - self.now)
                return Fenced(lease.epoch) if command.epoch else EngineHeld(left)
            if lease is None and command.epoch and not command.takeover:
                return Fenced(0)
            if lease is not None:
                self.vacate(command.engine, command.quarantine_ms)
            elif command.engine not in self.tables and self.engines() >= self.engines_max:
                return LimitReached("engines_max", self.engines_max)
            self.epochs += 1
            lease = self.leases[command.engine] = Lease(self.epochs, command.ttl_ms, self.now)
        tables = self.tables.get(command.engine, {})
        held = sum(map(len, tables.values()))
        return Attached(
            lease.epoch, lease.ttl, held, len(tables), len(lease.steps), resumed=resumed
        )

    def engines(self) -> int:
        return len({*self.tables, *self.leases})

    def changes(self) -> object:
        """What a command has changed when it differs afterwards; the order of tables aside."""
        epochs = [lease.epoch for lease in self.leases.values()]
        return self.allocated, self.freed, self.reclaimed, self.expired, epochs, list(self.batches)

    def end(self, engine: str) -> None:
        """Whatever was answered to an engine without a lease is not its successor's."""
        self.stale += [
            key
            for key, (command, _) in self.answers.items()
            if key[:2] == (engine, 0) and isinstance(command, Allocate | Free | Step)
        ]

    def vacate(self, engine: str, quarantine_ms: int) -> int:
        if engine in self.tables or engine in self.leases:
            self.end(engine)
        blocks = [block for table in self.tables.pop(engine, {}).values() for block in table]
        self.leases.pop(engine, None)
        self.reclaimed += len(blocks)
        if quarantine_ms == 0:
            self.put_back(blocks)
        elif blocks:
            self.made_batches += 1
            self.batches[self.made_batches] = (self.now + quarantine_ms, blocks)
        return len(blocks)

    def allocate(self, command: Allocate) -> Outcome:
        if command.num_blocks > len(self.free):
            return self.refuse(command.num_blocks)
        crossed = self.crossed(command.engine, [], [command.sequence_id])
        if crossed:
            return crossed
        blocks = self.take(command.engine, command.sequence_id, command.num_blocks)
        return Granted(blocks, len(self.tables[command.engine][command.sequence_id]))

    def numbered_step(self, command: Step, lease: Lease | None) -> Outcome:
        if not command.step_id or lease is None:
            return self.step(command)
        if command.step_id == len(lease.steps) and lease.steps:
            before, outcome = lease.steps[-1]
            return outcome if before == command else IdReused("step.step_id")
        if command.step_id != len(lease.steps) + 1:
            return StepOutOfOrder(len(lease.steps) + 1)
        outcome = self.step(command)
        if isinstance(outcome, Stepped):
            lease.steps.append((command, outcome))
        return outcome

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
        self.put_back(blocks)
        if not tables:
            self.tables.pop(engine, None)
        self.freed += len(blocks)
        return len(blocks)

    def put_back(self, blocks: list[int]) -> None:
        for block in blocks:
            self.free.insert(0, block)

    def refuse(self, need: int) -> Refused:
        reason = RefusalReason.EXCEEDS_POOL if need > self.total else RefusalReason.POOL_EXHAUSTED
        self.refused[reason] += 1
        return Refused(reason, len(self.free), need)

    def crossed(
        self, engine: str, free_ids: Sequence[int], allocate_ids: Sequence[int]
    ) -> LimitReached | None:
        known = engine in self.tables or engine in self.leases
        if allocate_ids and not known and self.engines() >= self.engines_max:
            return LimitReached("engines_max", self.engines_max)
        names = [one for one in self.tables.get(engine, {}) if one not in free_ids]
        names += [one for one in allocate_ids if one not in names]
        if allocate_ids and len(names) > self.sequences_max:
            return LimitReached("sequences_per_engine_max", self.sequences_max)
        return None
