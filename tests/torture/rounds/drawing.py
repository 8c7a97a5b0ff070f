"""What happens in a round: drawn from a seed and from what the model has at the moment.

Rules:
- The same seed draws the same rounds, in process and over the wire: nothing but the model is looked
  at, and it does not depend on how long anything takes.
- Most commands are those of engines in order. The others are what an engine with a bug does, or one
  that was away: bad releases, stale epochs, ids that were used for something else.
- An engine releases bad blocks amid good ones, in a step that does more: whatever was done of it
  would be seen.
- What is sent again is one of the last commands that were carried out, since a server remembers a
  limited number.
"""

from collections import deque
from random import Random
from typing import NamedTuple

from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Attach,
    Command,
    Detach,
    Free,
    Outcome,
    Reclaim,
    Renew,
    Step,
    StepPolicy,
)
from tests.property.model import ModelPool

LEASED = ("a", "b", "c")
UNLEASED = "u"
"""An engine that never attaches."""
SEQUENCES = (0, 1, 2, 2**64 - 1)
REPEATED = 32
"""Of the last commands that were carried out, one may be sent again."""
POLICIES = tuple(StepPolicy)
WEIGHTS = {
    "acquire": 14,
    "release": 14,
    "bad release": 10,
    "allocate": 14,
    "free": 10,
    "trim": 12,
    "step": 10,
    "step of a session": 8,
    "again": 6,
    "other content": 2,
    "stale epoch": 3,
    "renew": 2,
    "detach": 1,
    "takeover": 1,
    "reclaim": 1,
    "kill": 1,
    "snapshot": 1,
    "restart": 1,
    "lost answer": 2,
}


LOST = (
    *("acquire", "release", "bad release", "allocate", "free", "trim", "step"),
    *("step of a session", "step of a session", "detach"),
)
"""What an answer is lost to."""


class Terms(NamedTuple):
    """What differs between rounds in process and over the wire.

    `ttls` that engines ask for and `quarantines` of the pool are in milliseconds; `weights` replace
    some of WEIGHTS; `restarts` is how often a step of a sliding window is followed by one.
    """

    ttls: tuple[int, ...]
    quarantines: tuple[int, ...]
    weights: dict[str, int]
    restarts: float


class Round(NamedTuple):
    """What happens: of the kinds in WEIGHTS or an attach, to an engine, by a command if any."""

    kind: str
    engine: str
    command: Command | None


class Drawing:
    """Draws rounds; `carried_out` has to learn of each command that was."""

    def __init__(self, random: Random, model: ModelPool, terms: Terms) -> None:
        self.random = random
        self.killed: set[str] = set()
        self._model = model
        self._terms = terms
        self._weights = WEIGHTS | terms.weights
        self._last: deque[Command] = deque(maxlen=REPEATED)
        self._serial = 0

    def next(self) -> Round:
        """The next round."""
        kind = self.random.choices(list(self._weights), list(self._weights.values()))[0]
        engine = self.random.choice((*LEASED, UNLEASED))
        if engine in self.killed:
            if self._model.epoch(engine):
                engine = UNLEASED
            self.killed.discard(engine)
        epoch = self._model.epoch(engine)
        if kind in ("snapshot", "restart"):
            return Round(kind, engine, None)
        if kind in ("again", "other content") and self._last:
            command = self.random.choice(self._last)
            return Round(kind, command.engine, self._changed(command, kind))
        if engine != UNLEASED and not epoch:
            return Round("attach", engine, self._attach(engine))
        if kind == "kill":
            if epoch:
                self.killed.add(engine)
                return Round(kind, engine, None)
            kind = "step"
        return Round(kind, engine, self._command(kind, engine, epoch))

    def carried_out(self, command: Command, outcome: Outcome) -> None:
        """Let a command be sent again later, if that is safe."""
        has_id = bool(command.request_id) or bool(isinstance(command, Step) and command.step_id)
        if has_id and not isinstance(outcome, REJECTIONS):
            self._last.append(command)

    def _command(self, kind: str, engine: str, epoch: int) -> Command:
        random, request_id = self.random, self._request_id()
        key = (engine, epoch, request_id)
        if kind == "lost answer":
            kind = random.choice(LOST)
            key = (engine, epoch, self._new_id())
        if kind == "stale epoch":
            key = (engine, max(0, epoch + random.choice((-1, 1))), request_id)
            kind = random.choice(("acquire", "release", "allocate", "free", "detach", "step"))
        if kind == "renew" and epoch:
            return random.choice((Renew(engine, epoch), self._resume(engine, epoch)))
        if kind == "detach" and epoch:
            return Detach(*key)
        if kind == "takeover" and epoch:
            return self._attach(engine, takeover=random.random() < 0.7)
        if kind == "reclaim" and self._model.is_known(engine):
            return Reclaim(engine, random.choice((0, epoch)), request_id, self._quarantine())
        if kind == "allocate":
            return Allocate(*key, random.choice(SEQUENCES), self._amount())
        if kind == "free":
            return Free(*key, self._sequence(engine))
        step = Step(*key, 0, [], [], [], random.choice(POLICIES))
        if kind == "acquire":
            return step._replace(acquire=self._amount())
        if kind == "release":
            return step._replace(release=self._own(engine))
        if kind == "trim":
            return self._trimming(step)
        step = self._trimming(self._mixed(step))
        if kind == "bad release":
            return step._replace(release=self._bad(engine))
        if kind == "step of a session" and epoch:
            step_id = len(self._model.leases[engine].steps) + random.choice((1,) * 12 + (0, 2))
            return step._replace(request_id="", step_id=max(1, step_id))
        return step

    def _attach(self, engine: str, *, takeover: bool = False) -> Attach:
        ttl = self.random.choice(self._terms.ttls)
        return Attach(engine, 0, self._request_id(), takeover, ttl, self._quarantine())

    def _resume(self, engine: str, epoch: int) -> Attach:
        return Attach(engine, epoch, "", False, 0, self._quarantine())

    def _mixed(self, step: Step) -> Step:
        random = self.random
        allocate = random.sample(SEQUENCES, random.randint(0, 2))
        counts = [self._amount() for _ in allocate] if random.random() < 0.6 else []
        return step._replace(
            free_ids=random.sample(SEQUENCES, random.choice((0, 0, 1, 2))),
            allocate_ids=allocate,
            num_blocks=counts,
            release=self._own(step.engine),
            acquire=random.choice((0, 0, 1, 2, 5)),
        )

    def _trimming(self, step: Step) -> Step:
        random = self.random
        ids = random.sample(SEQUENCES, random.randint(1, 2))
        heads = [random.choice((0, 1, 1, 2, 5)) for _ in ids]
        tails = [random.choice((0, 0, 1, 2)) for _ in ids]
        drop = random.random()
        return step._replace(
            trim_ids=ids,
            trim_heads=[] if drop < 0.1 else heads,
            trim_tails=[] if drop > 0.7 else tails,
        )

    def _own(self, engine: str) -> list[int]:
        """Some of the acquired blocks of an engine, in any order."""
        acquired = self._model.acquired.get(engine, [])
        most = self.random.choice((1, 3, len(acquired)))
        return self.random.sample(acquired, min(most, len(acquired)))

    def _bad(self, engine: str) -> list[int]:
        """Blocks to release, one of which is not for this engine to release, or is there twice."""
        model, own = self._model, self._own(engine)
        mine = [one for table in model.tables.get(engine, {}).values() for one in table]
        others = [one for name, held in model.acquired.items() if name != engine for one in held]
        total = model.total + model.reserved
        bad = [
            list(range(model.reserved)),
            model.free,
            mine,
            others,
            [one for _, blocks in model.batches.values() for one in blocks],
            [total, total + 7, 2**32 - 1],
            own,
        ]
        number = self.random.choice(self.random.choice([one for one in bad if one]))
        own.insert(self.random.randint(0, len(own)), number)
        return own

    def _changed(self, command: Command, kind: str) -> Command:
        """The command, or another one under the same id."""
        if kind == "again" or not isinstance(command, Allocate | Step):
            return command
        if isinstance(command, Allocate):
            return command._replace(num_blocks=command.num_blocks + 1)
        return command._replace(acquire=command.acquire + 1)

    def _sequence(self, engine: str) -> int:
        """Mostly one that is there."""
        there = list(self._model.tables.get(engine, {}))
        return self.random.choice(there if there and self.random.random() < 0.8 else SEQUENCES)

    def _amount(self) -> int:
        return self.random.choice((1, 1, 1, 2, 3, 5, 9, 60))

    def _quarantine(self) -> int:
        return self.random.choice(self._terms.quarantines)

    def _request_id(self) -> str:
        return self._new_id() if self.random.random() < 0.4 else ""

    def _new_id(self) -> str:
        self._serial += 1
        return f"r{self._serial}"
