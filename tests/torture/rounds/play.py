"""Plays rounds, and sliding windows, with a subject, and looks for blocks that leaked.

Rules:
- After every round the subject is compared with the model, after every WHOLE-th wholly.
- At the end everything is given back: every block but the reserved ones is free, and is granted in
  the order that the model says.
- A failure names the seed, the round and the last events; the same seed fails in the same round.
"""

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from kvblock_service.core.commands import (
    REJECTIONS,
    Attach,
    Command,
    Detach,
    Granted,
    Outcome,
    Reclaim,
    Refused,
    Step,
    Stepped,
    StepPolicy,
)
from tests.torture.rounds.drawing import UNLEASED, Drawing, Round
from tests.torture.rounds.subject import Subject

WHOLE = 100
EVENTS = 12
SHOWN_EACH = 500


class Failure(AssertionError):
    """A round after which pool and model differed; the text says which, and what was before it.

    `count`: as many rounds, or trims, have to be played to come there again.
    """

    def __init__(self, text: str, count: int) -> None:
        super().__init__(text)
        self.count = count


class Player:
    """Plays with one subject; `counts` is the subject's own."""

    def __init__(self, subject: Subject, random: Random) -> None:
        self.subject = subject
        self.random = random
        self.counts = subject.counts
        self._events: deque[str] = deque(maxlen=EVENTS)
        self._drawing = Drawing(random, subject.model, subject.terms)

    def rounds(self, count: int) -> None:
        """Play rounds; raises Failure."""
        for number in range(1, count + 1):
            drawn = self._drawing.next()
            self.one(number, drawn.kind, partial(self._round, drawn))
            self.counts["rounds"] += 1
            show_progress("rounds", number, count)
        self.one(count, "the end", self.give_all_back)

    def give_all_back(self) -> None:
        """Let every engine leave, and look whether all that there is comes back."""
        subject, model = self.subject, self.subject.model
        for engine in sorted({*model.tables, *model.acquired, *model.leases}):
            epoch = model.epoch(engine)
            wait = subject.terms.quarantines[0]
            self.carry_out(Detach(engine, epoch, "") if epoch else Reclaim(engine, 0, "", wait))
        subject.end_quarantines()
        subject.restart()
        subject.check(whole=True)
        assert sorted(model.free) == list(range(model.reserved, model.reserved + model.total))
        # All of them at once, in the order in which they are handed out.
        nothing = Step(UNLEASED, 0, "", 0, [], [], [], StepPolicy.ALL_OR_NOTHING)
        everything = nothing._replace(acquire=model.total)
        granted = self.carry_out(everything)
        assert isinstance(granted, Stepped)
        assert len(granted.acquired) == model.total, "not every block was free"
        self.carry_out(nothing._replace(release=granted.acquired))
        subject.check(whole=True)

    def carry_out(self, command: Command) -> Outcome | None:
        """Have a command carried out, and count what came of it."""
        self._events.append(str(command))
        outcome = self.subject.carry_out(command)
        self._count(command, outcome)
        return outcome

    def _round(self, drawn: Round) -> None:
        subject, command = self.subject, drawn.command
        self.counts[f"round: {drawn.kind}"] += 1
        self._events.append(f"{drawn.kind} {drawn.engine}")
        if drawn.kind == "snapshot":
            subject.snapshot()
        elif drawn.kind == "restart":
            self.counts["restarts"] += 1
            subject.restart()
        elif drawn.kind == "kill":
            self.counts["kills"] += 1
            subject.kill(drawn.engine)
        if command is not None and drawn.kind == "lost answer":
            self.counts["restarts"] += 1
            self._events.append(str(command))
            outcome = subject.lose_answer(command)
            self._count(command, outcome)
        elif command is not None:
            outcome = self.carry_out(command)
        if command is not None and outcome is not None:
            self._drawing.carried_out(command, outcome)
        subject.pass_time(self.random.randint(0, 12))

    def one(self, number: int, kind: str, do: Callable[[], None]) -> None:
        """Do something as the round of a number, and compare; raises Failure with that number."""
        try:
            do()
            self.subject.check(whole=number % WHOLE == 0)
        except Exception as error:
            events = "\n  ".join(self._events)
            text = f"{type(error).__name__}: {error}"
            raise Failure(f"{number} ({kind}): {text}\nlast events:\n  {events}", number) from error

    def _count(self, command: Command, outcome: Outcome | None) -> None:
        if outcome is None:
            self.counts["rejected: invalid"] += 1
        elif isinstance(outcome, REJECTIONS):
            self.counts[f"rejected: {type(outcome).__name__}"] += 1
        elif isinstance(outcome, Refused) or (isinstance(outcome, Stepped) and outcome.refused):
            self.counts["refused"] += 1
        if isinstance(outcome, Granted):
            self.counts["blocks granted"] += len(outcome.blocks)
        if isinstance(command, Step) and isinstance(outcome, Stepped):
            self.counts["blocks released"] += len(command.release)
            self.counts["tables trimmed"] += sum(count > 0 for count in outcome.trimmed_counts)
            self.counts["blocks granted"] += outcome.granted_blocks
        if isinstance(command, Attach):
            self.counts["attaches"] += 1


def show_progress(what: str, done: int, count: int) -> None:
    """Tell a terminal how far it is."""
    if sys.stderr.isatty() and (done % SHOWN_EACH == 0 or done >= count):
        end = "\n" if done >= count else ""
        print(f"\r{done:,} of {count:,} {what}", end=end, file=sys.stderr, flush=True)
