"""An engine process: it takes and gives back blocks at random, stamps them, and writes its history.

Rules:
- It uses its blocks while its lease is valid, and no longer; the device checks that once more.
- It writes down that it lets go of blocks before the server can know of it, and that it was granted
  blocks after it was answered: what is between is its own, and nobody else's.
- Before it lets go its writes have landed, and it looks at each stamp.
- When its lease is lost it tries what a careless engine would do: late calls under the old epoch.
- SIGTERM asks for an end in order: it frees or detaches; other engines just leave.
"""

import signal
import time
from contextlib import closing
from random import Random

import kvblock
from kvblock.errors import DeadlineExceededError, ErrorReason, LeaseLostError, UnavailableError
from tests.torture.arena import Settled
from tests.torture.history import History
from tests.torture.holding import Holding, SessionHolding, UnaryHolding
from tests.torture.late import LateCaller
from tests.torture.setting import POOL, Setting
from tests.torture.stash_holding import StashHolding

REPLACED = 3
"""The exit code of an engine whose name has another process now."""
LATE_CALLS = 8
ACTS = 100
"""After so many acts, on average, an engine ends its lease in order and begins another one."""


class Engine:
    """One process's life."""

    def __init__(self, setting: Setting, name: str, life: int, address: str) -> None:
        self.setting = setting
        self.name = name
        self.life = life
        self.address = address
        self.random = Random(f"{setting.seed}/{name}/{life}")
        self.history = History(setting.path / f"engine-{life}.log")
        self.settled = Settled(setting.settled)
        self.ending = False
        self.issued = 0

    def run(self) -> int:
        """Hold one lease after the other until told to end."""
        signal.signal(signal.SIGTERM, self._end)
        takeover = self.random.random() < 0.5
        kind = self.random.choice((SessionHolding, StashHolding, UnaryHolding))
        while not self.ending:
            with (
                kvblock.Client(self.address, pool=POOL, engine=self.name, timeout=2.0) as kv,
                closing(kind(self, kv)) as holding,
            ):
                outcome = self._attach(holding, takeover)
                if outcome == "taken":
                    # Whoever was there before lets go within its TTL, or is alive.
                    return REPLACED
                if outcome == "attached":
                    self._hold(holding)
            takeover = False
        self.history.add("ended", life=self.life)
        return 0

    def _end(self, *_: object) -> None:
        self.ending = True

    def _attach(self, holding: Holding, takeover: bool) -> str:
        gives_up = time.monotonic() + 3 * self.setting.ttl
        while not self.ending:
            try:
                holding.attach(takeover=takeover)
            except kvblock.FailedPreconditionError as error:
                if error.reason is not ErrorReason.ENGINE_ATTACHED:
                    raise
                if time.monotonic() > gives_up:
                    return "taken"
                time.sleep(0.05)
            except (UnavailableError, DeadlineExceededError):
                return "unavailable"
            else:
                return "attached"
        return "ending"

    def _hold(self, holding: Holding) -> None:
        try:
            acts = self.random.randrange(2 * ACTS)
            while acts and not self.ending:
                holding.act()
                acts -= 1
                time.sleep(self.random.uniform(0.0, 2 * self.setting.pace))
            if not self.ending or self.random.random() < 0.5:
                holding.detach()
            else:
                holding.leave()
        except LeaseLostError as error:
            self.history.add(
                "lost",
                life=self.life,
                epoch=holding.epoch,
                until=holding.valid_until_ns,
                why=str(error),
                told=error.reason is ErrorReason.STALE_EPOCH,
            )
            self._late_calls(holding)

    def _late_calls(self, holding: Holding) -> None:
        """What a client without a clock would still send."""
        if self.random.random() < 0.5:
            time.sleep(self.random.uniform(0.0, self.setting.ttl))
        while self.settled.count(self.life) < self.issued:
            time.sleep(0.01)
        caller = LateCaller(self.address, self.name, self.life, holding.epoch, self.history)
        caller.send(self.random, self.random.randint(0, LATE_CALLS), holding.SEQUENCES)
