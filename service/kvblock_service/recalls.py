"""Recall in one pool as it runs: takes hints, answers what engines owe, notifies those who asked.

Rules:
- Used from the event loop's thread only, but for `levels` and `owed_by`, which read.
- While nobody lacks blocks an answer costs a test or two.
- A watcher is notified when what its engine owes differs from the last number that it sent. That
  is looked at once in a turn of the loop, after all commands of the turn.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from kvblock_service.core.commands import Stepped
from kvblock_service.core.demand import Demands
from kvblock_service.core.recall import EngineLevel, Hints
from kvblock_service.wait_queue import Waiter


class Watcher(Protocol):
    """Sends to one engine what it owes; `sent` is the last number that it has sent."""

    sent: int

    def notify(self) -> None:
        """The engine owes another number: get it with `owed` when it can be sent."""


class Recalls:
    """What engines of a pool owe; `waiters` are the allocations that wait for its blocks."""

    def __init__(
        self, demands: Demands, waiters: Collection[Waiter], now_ms: Callable[[], int]
    ) -> None:
        self.demands = demands
        self._waiters = waiters
        self._now_ms = now_ms
        self._watchers: dict[Watcher, str] = {}
        self._look_is_due = False

    def answer(self, engine: str, hints: Hints | None, stepped: Stepped | None) -> int:
        """Take the hints that came beside a step or a renewal, and answer what the engine owes.

        `stepped`: what came of the step; None: it was a renewal.
        """
        if hints is not None:
            granted = None if stepped is None else stepped.granted_blocks
            self.demands.hint(engine, hints, granted, self._now_ms())
            self.changed()
        return self.owed(engine) if self.demands.lacking or self._waiters else 0

    def owed(self, engine: str) -> int:
        """How many of its idle blocks an engine owes now."""
        self.demands.end_due(self._now_ms())
        return self.owed_by(self.levels()).get(engine, 0)

    def levels(self) -> list[EngineLevel]:
        """What engines lack and could give back now, in order of their names."""
        waiting: Counter[str] = Counter()
        for command, _ in tuple(self._waiters):
            waiting[command.engine] += command.num_blocks
        return self.demands.levels(waiting, self._now_ms())

    def owed_by(self, levels: list[EngineLevel]) -> dict[str, int]:
        """What each engine owes by its name; those that owe nothing are left out."""
        return self.demands.owed(levels, self._now_ms())

    def watch(self, engine: str, watcher: Watcher) -> None:
        """Notify a watcher from now on, also of what its engine owes already."""
        self._watchers[watcher] = engine
        self.changed()

    def leave(self, watcher: Watcher) -> None:
        """Notify a watcher no more."""
        self._watchers.pop(watcher, None)

    def changed(self) -> None:
        """Something has changed, or some time has passed: see who owes another number, soon."""
        if self._watchers and not self._look_is_due:
            self._look_is_due = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._look_is_due = False
        self.demands.end_due(self._now_ms())
        lack = self.demands.lacking or self._waiters
        owed = self.owed_by(self.levels()) if lack else {}
        for watcher, engine in tuple(self._watchers.items()):
            if owed.get(engine, 0) != watcher.sent:
                watcher.notify()
