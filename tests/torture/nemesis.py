"""The nemesis: a schedule of misfortunes, drawn from the seed, and what carries it out.

Rules:
- The schedule depends on the seed and the length only: when what happens, and with which numbers.
  Whom it hits depends on who is there at the moment.
- What it did is counted when it was done.
"""

import heapq
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

import kvblock
from kvblock.errors import KVBlockError
from tests.torture.crew import Crew, Life
from tests.torture.disk import Disk
from tests.torture.history import History, read
from tests.torture.holding import Holding
from tests.torture.late import LateCaller
from tests.torture.processes import set_wall_clock
from tests.torture.proxy import Proxy
from tests.torture.restarts import dump
from tests.torture.serving import Serving, StartFailed
from tests.torture.setting import POOL, Setting, now_ns

PER_MINUTE = {
    "kill engine": 25.0,
    "stop engine": 8.0,
    "pause engine": 6.0,
    "cut": 100.0,
    "hold": 15.0,
    "delay": 8.0,
    "lose answers": 8.0,
    "fill disk": 3.0,
    "jump clock": 12.0,
    "reclaim": 6.0,
    "take over": 8.0,
}
LATE_CALLS = 4
"""How many calls of an engine that was killed come late, at each of two times."""
START_TRIES = 10
BURST = 9
"""Server kills in a row."""
SHORT_GAP = (0.3, 1.0)
LONG_GAP = (2.4, 3.6)
"""Seconds between them: a start that meets what several crashes have left, and one that clients
come back to and go on with."""
QUIET_GAP = (7.0, 8.5)
"""Seconds until the next row: more than a TTL and a quarantine, which each start begins anew."""


class Misfortune(NamedTuple):
    """What happens at a time (seconds from the start), with two random numbers below 1."""

    at: float
    kind: str
    first: float
    second: float


def schedule(seed: int, seconds: float) -> list[Misfortune]:
    """All that is to happen, in order."""
    plan = []
    for kind, rate in PER_MINUTE.items():
        random = Random(f"{seed}/{kind}")
        at = random.uniform(0.5, 1.5) * 60.0 / rate
        while at < seconds:
            plan.append(Misfortune(at, kind, random.random(), random.random()))
            at += random.uniform(0.5, 1.5) * 60.0 / rate
    return sorted([*plan, *_server_kills(seed, seconds)])


def _server_kills(seed: int, seconds: float) -> Iterator[Misfortune]:
    random = Random(f"{seed}/kill server")
    at, count = random.uniform(1.0, 3.0), 0
    while at < seconds:
        yield Misfortune(at, "kill server", random.random(), random.random())
        count += 1
        gap = SHORT_GAP if random.random() < 0.35 else LONG_GAP
        at += random.uniform(*(gap if count % BURST else QUIET_GAP))


class Nemesis:
    """Carries a schedule out."""

    def __init__(
        self,
        setting: Setting,
        serving: Serving,
        crew: Crew,
        proxy: Proxy,
        disk: Disk,
        history: History,
        *,
        jumps: bool,
    ) -> None:
        self.setting = setting
        self.serving = serving
        self.crew = crew
        self.proxy = proxy
        self.disk = disk
        self.history = history
        self.jumps = jumps
        self.counts: Counter[str] = Counter()
        self.found: list[str] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._do: dict[str, Callable[[Misfortune], None]] = {
            "kill server": self._kill_server,
            "kill engine": self._kill_engine,
            "stop engine": self._stop_engine,
            "pause engine": self._pause_engine,
            "cut": self._cut,
            "hold": self._hold,
            "delay": self._delay,
            "lose answers": self._lose_answers,
            "fill disk": self._fill_disk,
            "jump clock": self._jump_clock,
            "reclaim": self._reclaim,
            "take over": self._take_over,
        }

    def run(self) -> None:
        """Everything in its time, up to the end of the schedule."""
        begin = time.monotonic()
        for one in schedule(self.setting.seed, self.setting.seconds):
            self._until(begin + one.at)
            self._do[one.kind](one)
        self._until(begin + self.setting.seconds)
        while self._later:
            heapq.heappop(self._later)[2]()
        self.proxy.calm()
        self.disk.relieve()
        self._alive()

    def restart(self) -> None:
        """Start the server, and look at what it has; a full disk is relieved when it needs that."""
        begun = now_ns()
        for _ in range(START_TRIES):
            try:
                self.serving.start()
                break
            except StartFailed as error:
                self.counts["starts refused on a full disk"] += 1
                self.history.add("start failed", text=str(error))
                if not self.disk.filled:
                    self.found.append(f"the server does not start: {error}")
                self.disk.relieve()
        else:
            raise RuntimeError("the server does not start any more")
        self.counts["server starts"] += 1
        dump(self.setting, self.history, begun)

    def _until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            if self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()
                continue
            due = self._later[0][0] - time.monotonic() if self._later else left
            time.sleep(max(0.0, min(left, due, 0.2)))
            self._alive()

    def _alive(self) -> None:
        self.crew.refill()
        code = self.serving.died()
        if code is not None:
            self.found.append(f"the server ended by itself with exit code {code}")
            self.serving.running = None
            self.restart()

    def _in(self, seconds: float, then: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._later, (time.monotonic() + seconds, self._order, then))

    def _kill_server(self, one: Misfortune) -> None:
        self._alive()
        self.history.add("server killed")
        self.serving.kill()
        self.counts["server kills"] += 1
        time.sleep(0.2 * one.first)
        self.restart()

    def _kill_engine(self, one: Misfortune) -> None:
        """What was under way from it comes late, when its name may be another process's."""
        life = self.crew.victim()
        if life is not None:
            self.history.add("engine killed", life=life.number)
            self.crew.kill(life)
            self.counts["engine kills"] += 1
            setting, random = self.setting, Random(one.first)
            landed = setting.late + 0.2
            self._in(landed + setting.ttl * one.first, lambda: self._late_calls(life, random))
            latest = setting.ttl + setting.quarantine
            self._in(landed + latest * (0.5 + one.second), lambda: self._late_calls(life, random))

    def _late_calls(self, life: Life, random: Random) -> None:
        epochs = [
            entry["epoch"]
            for entry in read(self.setting.path / f"engine-{life.number}.log")
            if entry["kind"] == "attached"
        ]
        if epochs:
            caller = LateCaller(
                self.setting.server, life.name, life.number, epochs[-1], self.history
            )
            caller.send(random, LATE_CALLS, Holding.SEQUENCES)

    def _stop_engine(self, one: Misfortune) -> None:
        """Past its TTL; mostly another process takes its name meanwhile."""
        life = self.crew.victim()
        if life is not None:
            self._stop(life, self.setting.ttl * (1.2 + one.first), "stops past the TTL")
            if one.second < 0.75:
                self.crew.begin(life.name)

    def _pause_engine(self, one: Misfortune) -> None:
        life = self.crew.victim()
        if life is not None:
            self._stop(life, self.setting.ttl * 0.8 * one.first, "pauses within the TTL")

    def _stop(self, life: Life, seconds: float, what: str) -> None:
        self.history.add("stopped", life=life.number, seconds=seconds)
        life.signal(signal.SIGSTOP)

        def resume() -> None:
            if life in self.crew.lives:
                life.signal(signal.SIGCONT)
                self.counts[what] += 1

        self._in(seconds, resume)

    def _cut(self, one: Misfortune) -> None:
        self.proxy.cut(1 + int(3 * one.first))

    def _hold(self, one: Misfortune) -> None:
        self.proxy.hold(2 * self.setting.ttl * one.first, cut_client=one.second < 0.7)
        self.counts["connections held"] += 1

    def _delay(self, one: Misfortune) -> None:
        self.proxy.delay = 0.1 * one.first
        self.counts["times of delay"] += 1
        self._in(2.0 * one.second, lambda: setattr(self.proxy, "delay", 0.0))

    def _lose_answers(self, one: Misfortune) -> None:
        self.proxy.loses_answers = 0.1 * one.first
        self.counts["times of lost answers"] += 1
        self._in(2.0 * one.second, lambda: setattr(self.proxy, "loses_answers", 0.0))

    def _fill_disk(self, one: Misfortune) -> None:
        if self.disk.can_fill:
            self.disk.fill()
            self.counts["times of a full disk"] += 1
            self._in(0.3 + 1.5 * one.first, self.disk.relieve)

    def _jump_clock(self, one: Misfortune) -> None:
        if self.jumps:
            set_wall_clock(self.setting, (one.first - 0.5) * 2 * 86400 * 10 ** (3 * one.second))
            self.counts["jumps of the wall clock"] += 1

    def _take_over(self, _: Misfortune) -> None:
        """A second process for a name whose first one is alive, and has writes under way."""
        life = self.crew.victim()
        if life is not None:
            self.crew.begin(life.name)
            self.counts["second processes for a name"] += 1

    def _reclaim(self, one: Misfortune) -> None:
        name = self.crew.names[int(one.first * len(self.crew.names))]
        try:
            with kvblock.Client(self.setting.server, pool=POOL, timeout=1.0) as kv:
                kv.reclaim_engine(name, force=True)
            self.counts["reclaims by an operator"] += 1
        except KVBlockError as error:
            self.history.add("reclaim refused", text=str(error))
