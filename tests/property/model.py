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
    BlockNotHeld,
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

    def __init__(self, total: int, engines_max: int, sequences_max: int, reserved: int = 0) -> None:
        self.total, self.reserved = total - reserved, reserved
        self.engines_max = engines_max
        self.sequences_max = sequences_max
        self.free = list(range(reserved, total))
        self.tables: dict[str, dict[int, list[int]]] = {}
        self.acquired: dict[str, list[int]] = {}
        self.dropped: dict[tuple[str, int], int] = {}
        self.leases: dict[str, Lease] = {}
        self.used: set[int] = set()
        self.batches: dict[int, tuple[int, list[int]]] = {}
        self.lost_by: dict[int, str] = {}
        self.waits: dict[int, int] = {}
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
            count += self.release(command.engine, self.acquired.get(command.engine, []))
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

    def restart(self) -> None:
        """Nothing is lost; every lease and every quarantine has its full time again."""
        for lease in self.leases.values():
            lease.ends = self.now + lease.ttl
        for batch, (_, blocks) in self.batches.items():
            self.batches[batch] = (self.now + self.waits[batch], blocks)

    def forget(self, answers_max: int) -> None:
        """Forget the oldest answers, which nobody asks for again: a long run has many."""
        for key in list(self.answers)[: max(0, len(self.answers) - answers_max)]:
            del self.answers[key]
        self.stale = [key for key in self.stale if key in self.answers]

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
            elif not self.is_known(command.engine) and self.engines() >= self.engines_max:
                return LimitReached("engines_max", self.engines_max)
            self.epochs += 1
            lease = self.leases[command.engine] = Lease(self.epochs, command.ttl_ms, self.now)
        tables = self.tables.get(command.engine, {})
        acquired = len(self.acquired.get(command.engine, []))
        held = sum(map(len, tables.values())) + acquired
        return Attached(
            lease.epoch, lease.ttl, held, len(tables), len(lease.steps), resumed, acquired
        )

    def engines(self) -> int:
        return len({*self.tables, *self.acquired, *self.leases})

    def is_known(self, engine: str) -> bool:
        return engine in self.tables or engine in self.acquired or engine in self.leases

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
        if self.is_known(engine):
            self.end(engine)
        for sequence_id in self.tables.get(engine, {}):
            self.dropped.pop((engine, sequence_id), None)
        blocks = [block for table in self.tables.pop(engine, {}).values() for block in table]
        blocks += self.acquired.pop(engine, [])
        self.leases.pop(engine, None)
        self.reclaimed += len(blocks)
        if quarantine_ms == 0:
            self.put_back(blocks)
        elif blocks:
            self.made_batches += 1
            self.batches[self.made_batches] = (self.now + quarantine_ms, blocks)
            self.lost_by[self.made_batches] = engine
            self.waits[self.made_batches] = quarantine_ms
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
        for block in command.release:
            if block not in self.acquired.get(engine, []):
                return BlockNotHeld(block, self.where(block))
        trims = self.trims(command)
        tables = self.tables.get(engine, {})
        ended = [one for one, head, tail in trims if head + tail >= len(tables.get(one, []))]
        gone = command.free_ids + ended
        crossed = self.crossed(engine, gone, command.allocate_ids, command.acquire)
        if crossed:
            return crossed
        counts = [self.give_back(engine, one) for one in command.free_ids]
        self.release(engine, command.release)
        trimmed = [self.trim(engine, *one) for one in trims]
        wanted = list(command.num_blocks) or [1] * len(command.allocate_ids)
        whole = sum(wanted) + command.acquire
        if command.policy is StepPolicy.ALL_OR_NOTHING and whole > len(self.free):
            refused = self.refuse(whole)
            return Stepped([], 0, refused, counts, len(self.free), [], trimmed)
        blocks: list[int] = []
        granted = 0
        unserved = None
        for sequence_id, need in zip(command.allocate_ids, wanted, strict=True):
            if need > len(self.free):
                unserved = self.refuse(need)
                break
            blocks += self.take(engine, sequence_id, need)
            granted += 1
        acquired: list[int] = []
        if unserved is None:
            if command.acquire > len(self.free):
                unserved = self.refuse(command.acquire)
            acquired = self.acquire(engine, min(command.acquire, len(self.free)))
        return Stepped(blocks, granted, unserved, counts, len(self.free), acquired, trimmed)

    def trims(self, command: Step) -> list[tuple[int, int, int]]:
        none = [0] * len(command.trim_ids)
        heads, tails = command.trim_heads or none, command.trim_tails or none
        return list(zip(command.trim_ids, heads, tails, strict=True))

    def trim(self, engine: str, sequence_id: int, head: int, tail: int) -> int:
        blocks = self.tables.get(engine, {}).get(sequence_id, [])
        if head + tail >= len(blocks):
            return self.give_back(engine, sequence_id)
        last = len(blocks) - tail
        self.tables[engine][sequence_id] = blocks[head:last]
        if head:
            before = self.dropped.get((engine, sequence_id), 0)
            self.dropped[engine, sequence_id] = before + head
        self.freed += head + tail
        self.put_back(blocks[:head] + blocks[last:])
        return head + tail

    def acquire(self, engine: str, count: int) -> list[int]:
        blocks = [self.free.pop(0) for _ in range(count)]
        if blocks:
            self.acquired.setdefault(engine, []).extend(blocks)
        self.used.update(blocks)
        self.allocated += count
        return blocks

    def release(self, engine: str, blocks: list[int]) -> int:
        """Take acquired blocks back; those that stay keep their order."""
        if not blocks:
            return 0
        kept = [block for block in self.acquired[engine] if block not in blocks]
        if kept:
            self.acquired[engine] = kept
        else:
            del self.acquired[engine]
        self.freed += len(blocks)
        self.put_back(blocks)
        return len(blocks)

    def where(self, number: int) -> str:
        for engine, blocks in self.acquired.items():
            if number in blocks:
                return f"is acquired by engine {engine!r}"
        for engine, tables in self.tables.items():
            for sequence_id, table in tables.items():
                if number in table:
                    return f"is in the table of sequence {sequence_id} of engine {engine!r}"
        for batch, (_, blocks) in self.batches.items():
            if number in blocks:
                return f"is in quarantine, since engine {self.lost_by[batch]!r} has lost it"
        if number < self.reserved:
            return "is reserved"
        return "is free" if number in self.used else "was never used"

    def take(self, engine: str, sequence_id: int, count: int) -> list[int]:
        blocks = [self.free.pop(0) for _ in range(count)]
        self.tables.setdefault(engine, {}).setdefault(sequence_id, []).extend(blocks)
        self.used.update(blocks)
        self.allocated += count
        return blocks

    def give_back(self, engine: str, sequence_id: int) -> int:
        tables = self.tables.get(engine, {})
        blocks = tables.pop(sequence_id, [])
        self.dropped.pop((engine, sequence_id), None)
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
        self,
        engine: str,
        free_ids: Sequence[int],
        allocate_ids: Sequence[int],
        acquire: int = 0,
    ) -> LimitReached | None:
        wants = bool(allocate_ids) or acquire > 0
        if wants and not self.is_known(engine) and self.engines() >= self.engines_max:
            return LimitReached("engines_max", self.engines_max)
        names = [one for one in self.tables.get(engine, {}) if one not in free_ids]
        names += [one for one in allocate_ids if one not in names]
        if allocate_ids and len(names) > self.sequences_max:
            return LimitReached("sequences_per_engine_max", self.sequences_max)
        return None
