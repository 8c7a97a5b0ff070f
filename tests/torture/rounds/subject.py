"""What rounds are played with: a pool beside the naive model, whatever lies between the two.

Rules:
- A method that a round calls has compared by its end: what it was answered, and after a command
  that was rejected or carried out before, that nothing has changed.
- A failed comparison is an AssertionError.
"""

from collections import Counter
from typing import Protocol

from kvblock_service.core.commands import Command, Outcome, Step
from tests.property.model import ModelPool
from tests.torture.rounds.drawing import Terms

TOTAL, RESERVED, SEQUENCES_MAX, ENGINES_MAX = 48, 2, 3, 4
"""A small pool, in which engines are in each other's way, and fewer sequences than are named."""


class Subject(Protocol):
    """A pool and its model; `counts` is what has happened to it."""

    model: ModelPool
    counts: "Counter[str]"
    terms: Terms

    def carry_out(self, command: Command) -> Outcome | None:
        """Have both carry out a command; None: it was invalid, and never reached the pool."""
        ...

    def lose_answer(self, command: Command) -> Outcome | None:
        """Have the process die before the answer is here, and send the command again."""
        ...

    def restart(self) -> None:
        """Have the process die, and start another one."""
        ...

    def snapshot(self) -> None:
        """Have what is on record be compacted, if that is not done by itself."""
        ...

    def kill(self, engine: str) -> None:
        """Let an engine vanish: its lease runs out, now or in later rounds."""
        ...

    def pass_time(self, milliseconds: int) -> None:
        """Let time pass, if that is not done by itself, and whatever is due happen."""
        ...

    def end_quarantines(self) -> None:
        """Let all quarantines end."""
        ...

    def check(self, *, whole: bool) -> None:
        """Compare all that there is; `whole`: also what takes longer to compare."""
        ...


def is_invalid(command: Command, total: int = TOTAL) -> bool:
    """Whether a command is one that no pool is asked: it names a block twice, or one too high."""
    if not isinstance(command, Step):
        return False
    release = command.release
    return len(set(release)) < len(release) or any(block >= total for block in release)
