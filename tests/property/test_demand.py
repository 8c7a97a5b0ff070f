"""What engines lack, against a model that reads the whole history of a pool each time."""

import random
from typing import NamedTuple

import pytest

from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Granted,
    Reclaim,
    Refused,
    Renew,
    Stamp,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.demand import SILENT_MS, SOON_MS, Demands
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.core.recall import EngineLevel, Hints

TOTAL = 40
NAMES = ("a", "b", "c", "d")
ROUNDS = 4000


class Said(NamedTuple):
    """Something that an engine said or that happened to it."""

    engine: str
    at_ms: int
    leased: bool
    kind: str
    want: int = 0
    idle: int = 0
    granted: int | None = None


def naive(history: list[Said], engine: str, now_ms: int) -> tuple[int, int]:
    """The demand and the idle blocks of an engine, from all that it ever said."""
    want = idle = refused = 0
    spoke, refused_at, leased = now_ms, now_ms, True
    for event in history:
        if event.engine != engine:
            continue
        if not leased and event.at_ms - spoke >= SILENT_MS:
            want = idle = refused = 0
        if event.kind == "end":
            want = idle = refused = 0
        elif event.kind == "hint":
            want, idle = max(0, event.want - (event.granted or 0)), event.idle
            refused = 0 if event.granted is None else refused
            spoke, leased = event.at_ms, event.leased
        else:
            want, refused = max(0, want - (event.granted or 0)), event.want
            refused_at = event.at_ms
            if refused:
                spoke, leased = event.at_ms, event.leased
    if not leased and now_ms - spoke >= SILENT_MS:
        return 0, 0
    return max(want, refused if now_ms - refused_at < SILENT_MS else 0), idle


def taken(outcome: Stepped | Granted | Refused) -> int:
    """How many blocks an engine was granted, in tables and outside."""
    if isinstance(outcome, Refused):
        return 0
    return len(outcome.blocks) + (len(outcome.acquired) if isinstance(outcome, Stepped) else 0)


class World:
    """A pool with its demands, random commands, and the history that the model reads."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        geometry = Geometry("main", TOTAL + 2, 16, 0, reserved_blocks=2)
        self.pool = Pool(geometry, Bounds(8, 8, 64))
        self.demands = Demands(self.pool)
        self.history: list[Said] = []
        self.now_ms = 1000
        self.steps = dict.fromkeys(NAMES, 0)

    def turn(self) -> None:
        self.now_ms += self.draw.choice((0, 1, 1, 40, 900, 5000))
        name = self.draw.choice(NAMES)
        command = self.command(name)
        outcome, replayed = self.pool.apply(command, Stamp(self.now_ms, 0, ""))
        if isinstance(outcome, REJECTIONS):
            return
        self.demands.applied(command, outcome, self.now_ms, replayed=replayed)
        self.note(command, outcome)
        if isinstance(command, Step | Renew) and self.draw.random() < 0.6:
            hints = Hints(self.draw.choice((0, 0, 3, 30)), self.draw.choice((0, 2, 9, 70)))
            granted = taken(outcome) if isinstance(outcome, Stepped) else None
            self.demands.hint(name, hints, granted, self.now_ms)
            said = ("hint", *hints, granted)
            self.history.append(Said(name, self.now_ms, bool(self.epoch(name)), *said))

    def epoch(self, name: str) -> int:
        engine = self.pool.engines.get(name)
        return engine.epoch if engine else 0

    def command(self, name: str) -> Command:
        draw, epoch = self.draw, self.epoch(name)
        kind = draw.randrange(12)
        if kind == 0:
            return Attach(name, draw.choice((0, epoch)), "", draw.random() < 0.5, 10_000, 700)
        if kind == 1 and epoch:
            return draw.choice((Detach(name, epoch, ""), Expire(name, epoch, 700)))
        if kind == 2:
            return draw.choice((Reclaim(name, 0, "", 0), EndQuarantine(1)))
        if kind == 3:
            return Free(name, epoch, "", draw.randrange(6))
        if kind == 4:
            return Allocate(name, epoch, "", draw.randrange(6), draw.choice((1, 5, 30, 50)))
        if kind == 5 and epoch:
            return Renew(name, epoch)
        wanted = draw.sample(range(6), draw.randrange(3))
        counts = [draw.choice((1, 4, 12)) for _ in wanted]
        freed = draw.sample(range(6), draw.randrange(3))
        engine = self.pool.engines.get(name)
        acquired = engine.acquired.blocks(self.pool.blocks.grants).tolist() if engine else []
        release = draw.sample(acquired, draw.randrange(len(acquired) + 1))
        acquire = draw.choice((0, 0, 2, 9, 50))
        policy = draw.choice(list(StepPolicy))
        return Step(name, epoch, "", 0, freed, wanted, counts, policy, release, acquire)

    def note(self, command: Command, outcome: object) -> None:
        name, leased = command.engine, bool(self.epoch(command.engine))
        if isinstance(command, Detach | Expire | Reclaim) or (
            isinstance(outcome, Attached) and not outcome.resumed
        ):
            self.history.append(Said(name, self.now_ms, leased, "end"))
        elif isinstance(command, Step | Allocate):
            assert isinstance(outcome, Stepped | Granted | Refused)
            refused = outcome.refused if isinstance(outcome, Stepped) else outcome
            granted = taken(outcome)
            whole = command.acquire + sum(command.num_blocks) if isinstance(command, Step) else 0
            whole = whole or (command.num_blocks if isinstance(command, Allocate) else 0)
            lacks = 0
            if isinstance(refused, Refused) and refused.needed <= TOTAL:
                lacks = whole - granted
            said = ("allocate", lacks, 0, granted)
            self.history.append(Said(name, self.now_ms, leased, *said))

    def check(self) -> None:
        waiting = {"b": 6} if self.draw.random() < 0.2 else {}
        levels = self.demands.levels(waiting, self.now_ms)
        expected = []
        for name in NAMES:
            demand, idle = naive(self.history, name, self.now_ms)
            engine = self.pool.engines.get(name)
            held = engine.held if engine else 0
            lacks = max(demand, waiting.get(name, 0))
            expected.append(EngineLevel(name, min(lacks, TOTAL - held), min(idle, held), held))
        shown = {row.name: row for row in levels}
        assert [shown.get(row.name, row._replace(demand=0, idle=0)) for row in expected] == expected
        assert all(row.demand == 0 for row in levels) or self.demands.lacking or waiting
        owed = self.demands.owed(levels, self.now_ms)
        soon = [
            b for b in self.pool.blocks.quarantine.values() if b.due_ms <= self.now_ms + SOON_MS
        ]
        supply = self.pool.blocks.available("a") + sum(len(batch.blocks) for batch in soon)
        assert sum(owed.values()) <= max(0, sum(row.demand for row in levels) - supply)
        assert all(owed.get(row.name, 0) <= row.idle for row in levels)


@pytest.mark.parametrize("part", range(4))
def test_demand_follows_from_what_was_said(seed: int, part: int) -> None:
    world = World(seed * 4 + part)
    for _ in range(ROUNDS // 4):
        world.turn()
        world.check()
