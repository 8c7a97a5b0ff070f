"""The simulated engines: what they do at random, and what they have to be right about.

Rules:
- An engine is in one call at a time, sends it again until it is answered, and keeps its id.
- An engine touches its blocks while its lease is valid by its own clock: for a TTL from the moment
  at which the last answered call was first sent.
- Before it frees a sequence its writes have landed, and it looks at each stamp.
- What it was answered has to fit to what it was answered before.
- Acquired blocks come and go in batches, which are in `tables` under the ids of BATCHES.
"""

from random import Random

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EngineHeld,
    Fenced,
    Free,
    Freed,
    Granted,
    Outcome,
    Refused,
    Renew,
    Renewed,
    Step,
    Stepped,
    StepPolicy,
)
from tests.torture.simulation.model import LATE_MS, TTL_MS, Mark, Message, Violation, Write

SEQUENCES = 4
BATCHES = (SEQUENCES, SEQUENCES + 1)
POLICIES = tuple(StepPolicy)


class Engine:
    """One engine's life after life under one name.

    `tables` and `epoch` are what it was answered; `valid` needs the time. `ousted`: epochs of
    leases that somebody else asked the server to end. A life has habits: it works through a session
    or not, makes `steps` that often, and wants at most `most` blocks at once.
    """

    def __init__(self, index: int, random: Random, quarantine_ms: int) -> None:
        self.index = index
        self.name = f"e{index}"
        self.random = random
        self.quarantine_ms = quarantine_ms
        self.life = 0
        self.serial = 0
        self.counter = 0
        self.ousted: set[int] = set()
        self.begin()

    def begin(self) -> None:
        """A new process that knows nothing."""
        self.life += 1
        self.in_session = self.random.random() < 0.3
        self.steps = 0.5 if self.random.random() < 0.5 else 0.0
        self.most = self.random.choice((1, 1, 3))
        self.calling: Message | None = None
        self.sent_ms = 0
        self.forget()

    def forget(self) -> None:
        """The lease is over."""
        self.epoch = 0
        self.confirmed_ms = 0
        self.step_id = 0
        self.tables: dict[int, list[int]] = {}
        self.acquiring = BATCHES[0]
        self.written: dict[int, Mark] = {}
        self.landing: dict[int, int] = {}

    @property
    def is_ousted(self) -> bool:
        """Whether its lease may be gone on the server's side."""
        return self.epoch in self.ousted

    def valid(self, now_ms: int) -> bool:
        """Whether it may touch its blocks."""
        return self.epoch != 0 and now_ms < self.confirmed_ms + TTL_MS

    def act(self, now_ms: int) -> Message | None:
        """The next thing to send: a call again, or a new one."""
        if self.epoch and not self.valid(now_ms):
            self.forget()
            self.calling = None
        if self.calling is not None:
            return self.calling
        self.serial += 1
        command = self._attach() if not self.epoch else self._work(now_ms)
        if command is None:
            return None
        self.sent_ms = now_ms
        self.calling = Message(self.index, self.life, self.serial, command)
        return self.calling

    def write(self, now_ms: int) -> Write | None:
        """Begin a write to one of its blocks."""
        if not self.tables or not self.valid(now_ms):
            return None
        blocks = self.random.choice(list(self.tables.values()))
        block = self.random.choice(blocks)
        if block in self.landing or self._is_leaving(block):
            return None
        self.counter += 1
        lands_ms = now_ms + self.random.randint(0, LATE_MS)
        self.landing[block] = lands_ms
        return Write(lands_ms, block, Mark(self.index, self.life, self.counter))

    def landed(self, write: Write) -> None:
        """A write has reached its block."""
        if self.landing.pop(write.block, None) is not None:
            self.written[write.block] = write.mark

    def take(self, answer_to: Message, outcome: Outcome, now_ms: int) -> list[int]:
        """An answer came; the blocks that it granted."""
        if answer_to != self.calling:
            return []
        if self.epoch and not self.valid(now_ms):
            return []
        self.calling = None
        command = answer_to.command
        granted: list[int] = []
        if isinstance(command, Attach) and not command.epoch:
            self._attached(outcome)
        elif isinstance(outcome, Fenced):
            if not self.is_ousted:
                raise Violation(f"{self.name} has epoch {self.epoch}, and is told {outcome}")
            self.forget()
        elif isinstance(command, Allocate):
            granted = self._granted(command, outcome)
        elif isinstance(command, Step):
            granted = self._stepped(command, outcome)
        elif isinstance(command, Free):
            self._freed(self.tables.pop(command.sequence_id, []), outcome)
        elif isinstance(command, Detach):
            self._freed([b for blocks in self.tables.values() for b in blocks], outcome)
            self.forget()
        elif isinstance(outcome, Attached):
            self._resumed(command, outcome)
        elif not isinstance(outcome, Renewed):
            raise self._unfit(command, outcome)
        if self.epoch:
            self.confirmed_ms = self.sent_ms
        return granted

    def _attach(self) -> Command:
        takeover = self.random.random() < 0.5
        return Attach(self.name, 0, self._id(), takeover, TTL_MS, self.quarantine_ms)

    def _work(self, now_ms: int) -> Command | None:
        roll = self.random.random()
        if roll < 0.06:
            return Renew(self.name, self.epoch)
        if roll < 0.08:
            # Without a TTL: that of the lease, also when a journal is replayed.
            return Attach(self.name, self.epoch, "", False, 0, self.quarantine_ms)
        if roll < 0.2:
            return None if self.landing else Detach(self.name, self.epoch, self._id())
        if self.in_session or self.random.random() < self.steps:
            return self._step()
        sequence_id = self.random.randrange(SEQUENCES)
        if roll < 0.65:
            count = self.random.randint(1, self.most)
            return Allocate(self.name, self.epoch, self._id(), sequence_id, count)
        if there := [one for one in self.tables if one not in BATCHES]:
            sequence_id = self.random.choice(there)
        if self._still_landing(sequence_id):
            return None
        return Free(self.name, self.epoch, self._id(), sequence_id)

    def _step(self) -> Command | None:
        ids = range(SEQUENCES)
        free = self.random.sample(ids, self.random.randint(0, 2))
        if any(self._still_landing(one) for one in free):
            return None
        allocate = self.random.sample(ids, self.random.randint(0, 2))
        runs = allocate if self.random.random() < 0.5 else []
        counts = [self.random.randint(1, self.most) for _ in runs]
        policy = POLICIES[self.random.random() < 0.5]
        request_id, step_id = ("", self.step_id + 1) if self.in_session else (self._id(), 0)
        key = (self.name, self.epoch, request_id, step_id)
        step = Step(*key, free, allocate, counts, policy)
        return self._with_numbers(step) if self.random.random() < 0.5 else step

    def _with_numbers(self, step: Step) -> Step:
        """A step that also acquires, releases and trims."""
        random = self.random
        trim = [one for one in random.sample(range(SEQUENCES), 1) if not self._still_landing(one)]
        heads = [random.randint(0, 2) for _ in trim]
        tails = [random.randint(0, 2) for _ in trim]
        release: list[int] = []
        acquire = 0
        self.acquiring = random.choice(BATCHES)
        batch = self.tables.get(self.acquiring, [])
        if batch and not self._still_landing(self.acquiring):
            release = random.sample(batch, len(batch))
        if release or not batch:
            acquire = random.randint(0, self.most)
        return step._replace(
            release=release, acquire=acquire, trim_ids=trim, trim_heads=heads, trim_tails=tails
        )

    def _id(self) -> str:
        return f"{self.index}-{self.life}-{self.serial}"

    def _still_landing(self, sequence_id: int) -> bool:
        return any(block in self.landing for block in self.tables.get(sequence_id, ()))

    def leaving(self) -> tuple[int, ...]:
        """The sequences that the call on its way frees or trims."""
        command = self.calling.command if self.calling else None
        if isinstance(command, Detach):
            return tuple(self.tables)
        if isinstance(command, Free):
            return (command.sequence_id,)
        if not isinstance(command, Step):
            return ()
        released = (self.acquiring,) if command.release else ()
        return (*command.free_ids, *command.trim_ids, *released)

    def left_of(self, sequence_id: int) -> list[int]:
        """What a sequence that is leaving has left when the call on its way is carried out."""
        command = self.calling.command if self.calling else None
        if not isinstance(command, Step) or sequence_id not in command.trim_ids:
            return []
        if sequence_id in command.free_ids:
            return []
        at = command.trim_ids.index(sequence_id)
        table = self.tables.get(sequence_id, [])
        return table[command.trim_heads[at] : max(0, len(table) - command.trim_tails[at])]

    def growing(self) -> tuple[int, ...]:
        """The sequences that the call on its way lets grow."""
        command = self.calling.command if self.calling else None
        if isinstance(command, Allocate):
            return (command.sequence_id,)
        if not isinstance(command, Step):
            return ()
        acquired = (self.acquiring,) if command.acquire else ()
        return (*command.allocate_ids, *acquired)

    def _is_leaving(self, block: int) -> bool:
        return any(block in self.tables.get(one, ()) for one in self.leaving())

    def _attached(self, outcome: Outcome) -> None:
        if isinstance(outcome, EngineHeld):
            return
        if not isinstance(outcome, Attached):
            raise Violation(f"{self.name} attaches and is answered {outcome}")
        self.forget()
        self.epoch = outcome.epoch

    def _resumed(self, command: Command, outcome: Attached) -> None:
        held = sum(map(len, self.tables.values()))
        found = (outcome.epoch, outcome.ttl_ms, outcome.held_blocks, outcome.resumed)
        if found != (self.epoch, TTL_MS, held, True):
            raise self._unfit(command, outcome)

    def _granted(self, command: Allocate, outcome: Outcome) -> list[int]:
        if isinstance(outcome, Refused):
            return []
        if not isinstance(outcome, Granted):
            raise self._unfit(command, outcome)
        table = self.tables.setdefault(command.sequence_id, [])
        table += outcome.blocks
        if len(outcome.blocks) != command.num_blocks or outcome.table_length != len(table):
            raise self._unfit(command, outcome)
        return outcome.blocks

    def _stepped(self, command: Step, outcome: Outcome) -> list[int]:
        if not isinstance(outcome, Stepped):
            raise self._unfit(command, outcome)
        self.step_id = command.step_id
        freed = [len(self.tables.pop(one, ())) for one in command.free_ids]
        if freed != outcome.freed_counts:
            raise self._unfit(command, outcome)
        self._trimmed(command, outcome)
        if command.release:
            del self.tables[self.acquiring]
        self._forget_written()
        at = 0
        for index, sequence_id in enumerate(command.allocate_ids[: outcome.granted]):
            count = command.num_blocks[index] if command.num_blocks else 1
            table = self.tables.setdefault(sequence_id, [])
            table += outcome.blocks[at : at + count]
            at += count
        if at != len(outcome.blocks):
            raise self._unfit(command, outcome)
        if len(outcome.acquired) > command.acquire:
            raise self._unfit(command, outcome)
        if outcome.acquired:
            self.tables.setdefault(self.acquiring, []).extend(outcome.acquired)
        return outcome.blocks + outcome.acquired

    def _trimmed(self, command: Step, outcome: Stepped) -> None:
        counts = []
        columns = (command.trim_ids, command.trim_heads, command.trim_tails)
        for sequence_id, head, tail in zip(*columns, strict=True):
            table = self.tables.pop(sequence_id, [])
            left = table[head : max(0, len(table) - tail)]
            counts.append(len(table) - len(left))
            if left:
                self.tables[sequence_id] = left
        if counts != outcome.trimmed_counts:
            raise self._unfit(command, outcome)

    def _freed(self, blocks: list[int], outcome: Outcome) -> None:
        if not isinstance(outcome, Freed) or outcome.num_blocks != len(blocks):
            raise Violation(f"{self.name} frees {blocks} and is answered {outcome}")
        self._forget_written()

    def _forget_written(self) -> None:
        if self.written:
            mine = {block for blocks in self.tables.values() for block in blocks}
            self.written = {block: mark for block, mark in self.written.items() if block in mine}

    def _unfit(self, command: Command, outcome: Outcome) -> Violation:
        return Violation(f"{self.name} has {self.tables} and sends {command}: answered {outcome}")
