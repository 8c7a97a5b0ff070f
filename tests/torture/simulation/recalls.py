"""What simulated engines say of their idle blocks and their wants, and what they may owe then.

Rules of the oracle:
- What is owed in all is at most what is lacked beyond the free blocks and those on their way, and
  at most an engine's idle blocks are owed by it, of which it has at most what it holds.
- An engine lacks and owes only what it has said, or was refused, under the lease that it has now.
- Hints are drawn apart from the events: a schedule goes the same way without them.
"""

from random import Random

from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Command,
    Outcome,
    Renew,
    Step,
    Stepped,
)
from kvblock_service.core.demand import SOON_MS, Demands
from kvblock_service.core.pool import Pool
from kvblock_service.core.recall import Hints
from tests.torture.simulation.model import Violation

AMOUNTS = (0, 0, 1, 4, 20)


class Recalls:
    """The demands of one life of the server, and under which epochs engines spoke in it."""

    def __init__(self, pool: Pool, random: Random) -> None:
        self._pool = pool
        self._demands = Demands(pool)
        self._random = random
        self._spoke: dict[str, int] = {}

    def carried_out(
        self, command: Command, outcome: Outcome, now_ms: int, *, replayed: bool
    ) -> None:
        """A command was carried out: what its engine says beside it, and what follows."""
        if isinstance(outcome, REJECTIONS):
            return
        demands, name = self._demands, command.engine
        demands.applied(command, outcome, now_ms, replayed=replayed)
        if isinstance(command, Step | Allocate | Renew):
            self._spoke[name] = command.epoch
        if isinstance(command, Step | Renew) and self._random.random() < 0.5:
            granted = len(outcome.blocks) if isinstance(outcome, Stepped) else None
            hints = Hints(self._random.choice(AMOUNTS), self._random.choice(AMOUNTS))
            demands.hint(name, hints, granted, now_ms)
        self.check(now_ms)

    def check(self, now_ms: int) -> None:
        """Raises Violation unless all that is lacked and owed is so by right."""
        levels = self._demands.levels({}, now_ms)
        owed = self._demands.owed(levels, now_ms)
        blocks = self._pool.blocks
        supply = len(blocks.free_list) + sum(
            len(batch.blocks)
            for batch in blocks.quarantine.values()
            if batch.due_ms <= now_ms + SOON_MS
        )
        if sum(owed.values()) > max(0, sum(row.demand for row in levels) - supply):
            raise Violation(f"more is owed than is lacked: {owed}, {levels}")
        for row in levels:
            engine = self._pool.engines.get(row.name)
            held = engine.held if engine else 0
            if not owed.get(row.name, 0) <= row.idle <= held:
                raise Violation(f"{row.name} owes {owed} of what is not idle: {row}")
            epoch = engine.epoch if engine else 0
            if (row.demand or row.idle) and (not epoch or self._spoke.get(row.name) != epoch):
                raise Violation(f"{row} is of a lease of {row.name} that has ended")
