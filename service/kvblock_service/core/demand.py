"""What the engines of one pool lack and could give back, as far as they have said or shown it.

Rules:
- It stands beside the pool: no record has it, no outcome follows from it, and a restart begins
  without it until the engines give their hints again.
- An engine's demand is the greatest of what it wants by its hints, what its last allocation was
  refused, and what it waits for: what is said in two ways counts once.
- What is wanted is lowered by each grant, and replaced by the next hints. A refusal counts until
  the engine's next allocation or step, whatever comes of it, or its next hints beside a renewal;
  for SILENT_MS at most. What can never be granted is no demand.
- All that an engine has said ends with its lease. What an engine without one has said ends when it
  says nothing for SILENT_MS.
- A hint is advice: idle blocks beyond what the engine holds do not count.
"""

from collections.abc import Mapping

from kvblock_service.core import recall
from kvblock_service.core.commands import (
    Allocate,
    Answer,
    Attach,
    Attached,
    Command,
    Detach,
    Expire,
    Granted,
    Reclaim,
    Refused,
    Step,
    Stepped,
)
from kvblock_service.core.pool_data import PoolData
from kvblock_service.core.recall import EngineLevel, Hints

SILENT_MS = 10_000
"""How long a refusal counts, and what an engine without a lease has said."""
SOON_MS = 1_000
"""Blocks whose quarantine ends within this time are on their way: nobody owes for them."""


class Demand:
    """What one engine has said and was refused, in blocks.

    `ends_ms` is when it ends without a lease, `refused_ends_ms` when the refusal does.
    """

    __slots__ = ("ends_ms", "idle", "refused", "refused_ends_ms", "want")

    def __init__(self) -> None:
        self.want = 0
        self.idle = 0
        self.refused = 0
        self.refused_ends_ms = 0
        self.ends_ms: int | None = None

    def has_ended(self, now_ms: int) -> bool:
        """Whether it is of an engine without a lease that has been silent for too long."""
        return self.ends_ms is not None and self.ends_ms <= now_ms


class Demands:
    """The demands and idle blocks of a pool's engines, by name.

    `engines` has those that have said something or were refused, `lacking` those of them that lack
    blocks, or did when they were last looked at: while it is empty nobody owes.
    """

    def __init__(self, pool: PoolData) -> None:
        self._pool = pool
        self.engines: dict[str, Demand] = {}
        self.lacking: dict[str, None] = {}

    def applied(
        self, command: Command, outcome: Answer, now_ms: int, *, replayed: bool = False
    ) -> None:
        """A command of the pool was carried out, at that moment unless it is a repetition."""
        if replayed:
            return
        if isinstance(command, Step | Allocate):
            assert isinstance(outcome, Stepped | Granted | Refused)
            self._allocated(command, outcome, now_ms)
        elif isinstance(command, Detach | Expire | Reclaim):
            self.end(command.engine)
        elif isinstance(command, Attach):
            assert isinstance(outcome, Attached)
            if not outcome.resumed:
                self.end(command.engine)

    def hint(self, engine: str, hints: Hints, granted: int | None, now_ms: int) -> None:
        """An engine has given hints, beside a step that was granted so many blocks.

        None: beside a renewal.
        """
        demand = self._of(engine, now_ms)
        if demand is None:
            return
        demand.want = max(0, hints.want_blocks - (granted or 0))
        demand.idle = hints.idle_blocks
        if granted is None:
            demand.refused = 0
        self._settle(engine, demand)

    def end(self, engine: str) -> None:
        """Forget an engine: its lease has ended."""
        self.engines.pop(engine, None)
        self.lacking.pop(engine, None)

    def end_due(self, now_ms: int) -> None:
        """Forget what has ended by its time. Until then it does not count, and takes room."""
        for name, demand in list(self.engines.items()):
            if demand.has_ended(now_ms):
                self.end(name)
            elif demand.refused and demand.refused_ends_ms <= now_ms:
                demand.refused = 0
                self._settle(name, demand)

    def levels(self, waiting: Mapping[str, int], now_ms: int) -> list[EngineLevel]:
        """What engines lack and could give back now, in order of their names.

        `waiting`: the blocks that the waiting allocations of engines want.
        """
        rows = []
        # A copy, since another thread may be the one that reads.
        engines = dict(self.engines)
        for name in sorted(engines.keys() | waiting.keys()):
            demand = engines.get(name)
            if demand is None or demand.has_ended(now_ms):
                demand = Demand()
            engine = self._pool.engines.get(name)
            held = engine.held if engine else 0
            refused = demand.refused if demand.refused_ends_ms > now_ms else 0
            lacks = max(demand.want, refused, waiting.get(name, 0))
            most = self._pool.geometry.issuable_blocks - held
            rows.append(EngineLevel(name, min(lacks, most), min(demand.idle, held), held))
        return rows

    def owed(self, levels: list[EngineLevel], now_ms: int) -> dict[str, int]:
        """What each engine owes by its name; those that owe nothing are left out."""
        blocks = self._pool.blocks
        supply = len(blocks.free_list)
        for batch in blocks.quarantine.values():
            if batch.due_ms - now_ms <= SOON_MS:
                supply += len(batch.blocks)
        return recall.owed(levels, supply)

    def _allocated(
        self, command: Step | Allocate, outcome: Stepped | Granted | Refused, now_ms: int
    ) -> None:
        """An engine was granted blocks or refused them, or has made a step that asked for none."""
        name = command.engine
        lacks = _refused(command, outcome, self._pool.geometry.issuable_blocks)
        demand = self._of(name, now_ms) if lacks else self.engines.get(name)
        if demand is None:
            return
        if not isinstance(outcome, Refused):
            demand.want = max(0, demand.want - _granted(outcome))
        demand.refused = lacks
        demand.refused_ends_ms = now_ms + SILENT_MS
        self._settle(name, demand)

    def _of(self, name: str, now_ms: int) -> Demand | None:
        """The demand of an engine that says something now; None where no more of them fit."""
        demand = self.engines.get(name)
        if demand is None or demand.has_ended(now_ms):
            self.end(name)
            most = self._pool.bounds.engines_max
            if len(self.engines) >= most:
                self.end_due(now_ms)
                if len(self.engines) >= most:
                    return None
            demand = self.engines[name] = Demand()
        engine = self._pool.engines.get(name)
        demand.ends_ms = None if engine and engine.epoch else now_ms + SILENT_MS
        return demand

    def _settle(self, name: str, demand: Demand) -> None:
        if demand.want or demand.refused:
            self.lacking[name] = None
        else:
            self.lacking.pop(name, None)
            if not demand.idle:
                self.engines.pop(name, None)


def _refused(command: Step | Allocate, outcome: Stepped | Granted | Refused, most: int) -> int:
    """How many blocks a command wanted and was not granted, though the pool has as many."""
    refused = outcome.refused if isinstance(outcome, Stepped) else outcome
    if not isinstance(refused, Refused) or refused.needed > most:
        return 0
    if isinstance(command, Allocate):
        return command.num_blocks
    assert isinstance(outcome, Stepped)
    wanted = (sum(command.num_blocks) or len(command.allocate_ids)) + command.acquire
    return wanted - outcome.granted_blocks


def _granted(outcome: Stepped | Granted) -> int:
    return outcome.granted_blocks if isinstance(outcome, Stepped) else len(outcome.blocks)
