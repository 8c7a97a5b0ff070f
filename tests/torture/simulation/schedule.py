"""One schedule: a seeded sequence of events, and the oracle that looks on.

Rules of the oracle:
- A granted block is in no other table of an engine whose lease is valid.
- After a restart, and at the end, an engine whose lease is valid has all that it was answered, and
  nothing else but what its call on the way may have brought about.
- A lease does not run out while its engine takes it for valid.
- An engine finds in its blocks what it wrote.
- What engines owe is as `recalls` says.
- At the end, when all engines are gone, every block is free again and the audit is clean.
"""

from itertools import accumulate
from random import Random

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Attach, Detach, Expire, Reclaim
from tests.torture.simulation.engines import BATCHES, Engine
from tests.torture.simulation.model import (
    QUARANTINE_MS,
    TTL_MS,
    Answer,
    Mark,
    Message,
    Violation,
    Write,
)
from tests.torture.simulation.plants import NONE, Plant
from tests.torture.simulation.server import GEOMETRY, CrashPoint, Server

ENGINES = (1, 2, 2, 3)
EVENTS = 36
CALLS = 50
RARE = {
    "crash": 6,
    "snapshot": 3,
    "reclaim": 2,
    "deliver": 9,
    "answer": 9,
    "write": 9,
    "pass": 10,
    "jump": 8,
    "die": 2,
    "compare": 3,
}
"""How often an event is drawn; a schedule multiplies each weight of RARE by one of MOODS."""
MOODS = (0, 1, 1, 3)
"""What needs two rare events in a row is frequent where others do not come between."""
KINDS = ("exchange", *RARE)
CALM = 0.5
"""Schedules in which no call is late or lost while the server runs: more comes about in them."""
COMPARED = 0.2
"""Schedules in which the journal is replayed once more at the end; it takes as long as the rest."""
POINTS = tuple(CrashPoint)
ISSUABLE = range(GEOMETRY.reserved_blocks, GEOMETRY.total_blocks)


class Schedule:
    """The world of one seed. `events` tells what happened when `traced`."""

    def __init__(self, seed: str, plant: Plant = NONE, *, traced: bool = False) -> None:
        self.random = Random(seed)
        self.now_ms = 1_000_000
        self.server = Server(plant, Random(f"{seed} hints"))
        self.server.start(self.now_ms)
        count = self.random.choice(ENGINES)
        self.engines = [Engine(i, self.random, self.server.quarantine_ms) for i in range(count)]
        self.calm = self.random.random() < CALM
        weights = [weight * self.random.choice(MOODS) for weight in RARE.values()]
        self.weights = list(accumulate([CALLS, *weights]))
        self.to_server: list[Message] = []
        self.to_engines: list[Answer] = []
        self.flying: list[Write] = []
        self.arena: list[Mark | None] = [None] * GEOMETRY.total_blocks
        self.counts = dict.fromkeys((*CrashPoint, "lives", "takeovers", "grants", "expiries"), 0)
        self.traced = traced
        self.events: list[str] = []

    def run(self) -> None:
        """Raises Violation when the oracle finds something, or the program ends of an error."""
        try:
            for _ in range(EVENTS):
                self._event()
            self._finish()
        except Violation:
            raise
        except Exception as error:
            raise Violation(f"{type(error).__name__}: {error}") from error

    def _event(self) -> None:
        if self.server.running is None and self.random.random() < 0.5:
            self._restart()
            return
        (kind,) = self.random.choices(KINDS, cum_weights=self.weights)
        engine = self.random.choice(self.engines)
        if kind == "exchange":
            self._exchange(engine)
        elif kind == "deliver":
            self._deliver_any()
        elif kind == "answer":
            self._answer_any()
        elif kind == "write":
            write = engine.write(self.now_ms)
            if write is not None:
                self.flying.append(write)
                self._note("write", write)
        elif kind == "pass":
            self._verify(engine)
            self._advance(self.random.choice((1, 20, 90, 250)))
        elif kind == "jump":
            self._advance(self.random.choice((600, TTL_MS + 1, QUARANTINE_MS + 1)))
        elif kind == "die":
            self._note("dies", engine.name, engine.life)
            self.counts["lives"] += 1
            engine.begin()
        elif self.server.running is not None:
            self._event_of_server(kind, engine)

    def _event_of_server(self, kind: str, engine: Engine) -> None:
        if kind == "crash":
            self._crash(self.random.choice(POINTS))
        elif kind == "snapshot":
            position = self.server.put_snapshot(self.random)
            self.server.journal.compact(position)
            self._note("snapshot at", position)
        elif kind == "reclaim":
            self._reclaim(engine)
        else:
            self._compare_all()

    def _exchange(self, engine: Engine) -> None:
        """A call; what its way does to it depends on the seed."""
        serial = engine.serial
        message = engine.act(self.now_ms)
        if message is None:
            return
        # Sent again, it may have been carried out, and the blocks may be others' by now.
        if engine.serial != serial:
            self._verify(engine, engine.leaving())
        self._note("sends", message)
        roll = 1 if self.calm else self.random.random()
        if self.server.running is None or roll < 0.15:
            self.to_server.append(message)
            return
        self._deliver(message)
        if roll < 0.25:
            self.to_server.append(message)
        if roll > 0.3:
            self._write_and_send(straight=roll > 0.45)

    def _deliver(self, message: Message) -> None:
        command = message.command
        before = self._epoch(command.engine)
        outcome = self.server.carry_out(command, self.now_ms, message)
        self._note("carried out", command, outcome)
        if isinstance(command, Attach) and command.takeover:
            self._oust(command.engine, before)
        if self.server.plant.early_answer:
            self._send_out(self.server.early_answers(), straight=True)

    def _deliver_any(self) -> None:
        if self.to_server and self.server.running is not None:
            message = self.to_server.pop(self.random.randrange(len(self.to_server)))
            self._deliver(message)
            if self.random.random() < 0.5:
                self._write_and_send(straight=False)

    def _write_and_send(self, *, straight: bool) -> None:
        self._send_out(self.server.write(), straight=straight)

    def _send_out(self, answers: list[Answer], *, straight: bool) -> None:
        for answer in answers:
            if straight:
                self._take(answer)
            elif self.random.random() < 0.6:
                self.to_engines.append(answer)

    def _answer_any(self) -> None:
        if self.to_engines:
            self._take(self.to_engines.pop(self.random.randrange(len(self.to_engines))))

    def _take(self, answer: Answer) -> None:
        engine = self.engines[answer.to.sender]
        if engine.life != answer.to.life:
            return
        attached_before = engine.epoch
        granted = engine.take(answer.to, answer.outcome, self.now_ms)
        self._note("answered", engine.name, answer.outcome)
        if not attached_before and engine.epoch and isinstance(answer.to.command, Attach):
            self.counts["takeovers"] += answer.to.command.takeover
        self.counts["grants"] += len(granted)
        if granted and engine.valid(self.now_ms):
            self._nobody_else_has(engine, granted)

    def _nobody_else_has(self, engine: Engine, granted: list[int]) -> None:
        mine = [block for blocks in engine.tables.values() for block in blocks]
        if len(set(mine)) != len(mine) or not all(b in ISSUABLE for b in granted):
            raise Violation(f"{engine.name} was granted {granted}: {engine.tables}")
        for other in self.engines:
            if other is engine or not other.valid(self.now_ms):
                continue
            leaving = other.leaving()
            for sequence_id, blocks in other.tables.items():
                shared = set(blocks).intersection(granted)
                if shared and sequence_id not in leaving:
                    raise Violation(
                        f"blocks {sorted(shared)} were granted to {engine.name} and are in the"
                        f" table of sequence {sequence_id} of {other.name}, epoch {other.epoch}"
                    )

    def _reclaim(self, engine: Engine) -> None:
        before = self._epoch(engine.name)
        command = Reclaim(engine.name, 0, "", self.server.quarantine_ms)
        outcome = self.server.carry_out(command, self.now_ms, None)
        self._note("carried out", command, outcome)
        self._oust(engine.name, before)

    def _epoch(self, name: str) -> int:
        engine = self.server.pool.engines.get(name)
        return engine.epoch if engine else 0

    def _oust(self, name: str, epoch: int) -> None:
        """Somebody asked for the end of a lease: it may be gone, and come back by a crash."""
        if epoch and self._epoch(name) != epoch:
            self.engines[int(name[1:])].ousted.add(epoch)

    def _crash(self, point: CrashPoint) -> None:
        self.counts[point] += 1
        self._note("crash", point.value)
        self._send_out(self.server.crash(point, self.random), straight=False)
        self.to_server = [one for one in self.to_server if self.random.random() < 0.5]

    def _restart(self) -> None:
        self.server.start(self.now_ms)
        self._note("restart at position", self.server.journal.position)
        self._compare_all()

    def _compare_all(self) -> None:
        if self.server.running is not None:
            for engine in self.engines:
                self._compare(engine)

    def _compare(self, engine: Engine) -> None:
        """The server has what the engine was answered."""
        if engine.is_ousted or not engine.valid(self.now_ms):
            return
        kept = self.server.pool.engines.get(engine.name)
        leaving, growing = engine.leaving(), engine.growing()
        if kept is None or kept.epoch != engine.epoch:
            if engine.calling and isinstance(engine.calling.command, Detach):
                return
            raise Violation(f"the lease of {engine.name}, epoch {engine.epoch}, is lost")
        acquired = kept.acquired.blocks(self.server.pool.blocks.grants)
        self._compare_acquired(engine, acquired.tolist())
        for sequence_id in {**engine.tables, **kept.tables}:
            if sequence_id in BATCHES:
                continue
            told = engine.tables.get(sequence_id, [])
            has = self.server.pool.table(engine.name, sequence_id) or []
            free, grow = sequence_id in leaving, sequence_id in growing
            same = (
                has == told
                or (grow and has[: len(told)] == told)
                or (free and (grow or has == engine.left_of(sequence_id)))
            )
            if not same:
                raise Violation(
                    f"{engine.name} was answered {told} for sequence {sequence_id}, and the server"
                    f" has {has}"
                )

    def _compare_acquired(self, engine: Engine, has: list[int]) -> None:
        leaving, growing = engine.leaving(), engine.growing()
        told = [block for one in BATCHES for block in engine.tables.get(one, ())]
        staying = [
            block for one in BATCHES if one not in leaving for block in engine.tables.get(one, ())
        ]
        grows = any(one in growing for one in BATCHES)
        same = sorted(has) == sorted(told) or (
            set(staying) <= set(has) and (grows or sorted(has) == sorted(staying))
        )
        if not same:
            raise Violation(f"{engine.name} has acquired {told}, and the server has {has}")

    def _verify(self, engine: Engine, only: tuple[int, ...] | None = None) -> None:
        """The engine looks at its stamps; not at those it has asked to free, which it has seen."""
        if not engine.valid(self.now_ms):
            return
        if only is None:
            leaving = engine.leaving()
            only = tuple(one for one in engine.tables if one not in leaving)
        for sequence_id in only:
            for block in engine.tables.get(sequence_id, ()):
                mark = engine.written.get(block)
                if mark is not None and block not in engine.landing and self.arena[block] != mark:
                    raise Violation(
                        f"{engine.name} wrote {mark} into block {block} and finds"
                        f" {self.arena[block]}"
                    )

    def _advance(self, by_ms: int) -> None:
        """Let time pass: writes land, then what is due is due."""
        self.now_ms += by_ms
        self._note("time", self.now_ms)
        landing = sorted(write for write in self.flying if write.lands_ms <= self.now_ms)
        self.flying = [write for write in self.flying if write.lands_ms > self.now_ms]
        for write in landing:
            self.arena[write.block] = write.mark
            engine = self.engines[write.mark.engine]
            if engine.life == write.mark.life:
                engine.landed(write)
        if self.server.running is not None:
            self._reap()

    def _reap(self) -> None:
        for command in self.server.due(self.now_ms):
            if isinstance(command, Expire):
                self.counts["expiries"] += 1
                engine = self.engines[int(command.engine[1:])]
                if engine.epoch == command.epoch and engine.valid(self.now_ms):
                    raise Violation(f"the lease of {engine.name} runs out while it is valid")
            outcome = self.server.carry_out(command, self.now_ms, None)
            self._note("due", command, outcome)
        self.server.check_recall(self.now_ms)

    def _finish(self) -> None:
        if self.server.running is None:
            self._restart()
        self._write_and_send(straight=True)
        self._compare_all()
        for engine in self.engines:
            self._verify(engine)
        if self.random.random() < COMPARED:
            self.server.compare(self.now_ms)
        for engine in self.engines:
            engine.begin()
        for wait in (TTL_MS + 1, QUARANTINE_MS + 1):
            self._advance(wait)
        report = audit(self.server.pool)
        if report.violations or report.free_blocks != len(ISSUABLE):
            raise Violation(f"at the end the pool is not free and clean: {report}")

    def _note(self, *words: object) -> None:
        if self.traced:
            self.events.append(" ".join(map(str, words)))
