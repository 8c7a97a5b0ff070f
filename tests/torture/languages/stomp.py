"""One run: engines of several languages, and what happens to them.

Rules:
- The seed decides what happens to whom and when; how the processes are scheduled it does not.
- Some time passes between two happenings, so that engines get on; at the end all of them run.
- What an engine still had to say when it was killed comes late: under its epoch, when the next
  process has attached under its name. It may have no effect.
- A pool that is too small for its engines is part of the run: without a refusal it would show
  little.
"""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import grpc

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc
from tests.torture.languages.crew import PATIENCE, Engine
from tests.torture.processes import server_forks
from tests.torture.serving import Serving
from tests.torture.setting import Setting

TTL, QUARANTINE = 2.0, 1.0
BLOCKS, BLOCK_BYTES = 160, 512
PAUSE = 2.0
"""Seconds between two happenings, on average."""
SERVER_KILLS = 2
LATE_IDS = range(1, 65)
"""Sequences that a late call frees: every process of an engine has those of the low numbers."""


class Report(NamedTuple):
    """What was done, and what was found."""

    happened: Counter[str]
    engines: list[Engine]
    violations: list[str]


class Stomp:
    """The run; `tell` gets a line now and then."""

    def __init__(
        self,
        directory: Path,
        commands: dict[str, list[str]],
        seed: int,
        plant: str,
        tell: Callable[[str], None],
    ) -> None:
        self._random = Random(seed)
        self._tell = tell
        self._happened: Counter[str] = Counter()
        self._violations: list[str] = []
        self._to_come: dict[str, int] = {}
        """The epochs of killed processes whose late call has not come yet, by engine."""
        setting = Setting(
            *(seed, 0.0, len(commands), BLOCKS, TTL, QUARANTINE, 0.0, 0.0, 0.0),
            *(plant, "process", str(directory)),
        )
        forks, _ = server_forks(setting)
        more = [f"--lease-ttl={TTL:g}", "--lease-ttl-min=1"]
        state_dir = directory / "state"
        self._serving = Serving(setting, forks, state_dir, BLOCK_BYTES, more)
        self._address = setting.server
        self._engines = [
            Engine(language, command, self._address, directory / f"{language}.log")
            for language, command in commands.items()
        ]

    def run(self, seconds: float) -> Report:
        """Let them work for so long."""
        with self._running():
            for engine in self._engines:
                engine.start(self._random.randrange(2**32))
            self._get_on()
            began = time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                due = min(SERVER_KILLS, int(passed / seconds * (SERVER_KILLS + 1)))
                if self._happened["server killed"] < due:
                    self._kill_server()
                self._happen(self._random.choice(self._engines))
                time.sleep(self._random.uniform(0.5, 1.5) * PAUSE)
                for engine in self._engines:
                    engine.look()
                    if not engine.is_running:
                        engine.start(self._random.randrange(2**32))
                self._come_late()
                self._tell(f"{passed:.0f} s, {self._happened.total()} happenings")
            while self._happened["server killed"] < SERVER_KILLS:
                self._kill_server()
                self._get_on()
            self._get_on()
            for engine in self._engines:
                engine.stop()
            self._settle()
        for engine in self._engines:
            self._violations += engine.ended_badly
            if count := engine.counts["overwritten"]:
                self._violations.append(f"{engine.name}: {count} stamps overwritten")
        return Report(self._happened, self._engines, self._violations)

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._serving.start()
        try:
            yield
        finally:
            for engine in self._engines:
                if engine.is_running:
                    engine.kill()
            self._serving.close()

    def _happen(self, engine: Engine) -> None:
        what = self._random.choices(
            ["engine killed", "engine reclaimed", "engine stopped past its lease"], [6, 2, 1]
        )[0]
        if what == "engine killed":
            epochs = self._epochs()
            engine.kill()
            if epochs.get(engine.name):
                self._to_come[engine.name] = epochs[engine.name]
            engine.start(self._random.randrange(2**32))
        elif what == "engine reclaimed":
            try:
                with self._connect() as kv:
                    kv.reclaim_engine(engine.name, force=True)
            except kvblock.NotFoundError:
                what = "engine reclaimed that held nothing"
        else:
            engine.signal(signal.SIGSTOP)
            time.sleep(1.5 * TTL)
            engine.signal(signal.SIGCONT)
        self._happened[what] += 1

    def _epochs(self) -> dict[str, int]:
        """The epoch of each engine that has a lease."""
        with self._connect() as kv:
            (pool,) = kv.stats().pools
        return {one.engine: one.epoch for one in pool.engines if one.epoch}

    def _come_late(self) -> None:
        """Have late calls come whose engine has another process now."""
        now = self._epochs()
        with grpc.insecure_channel(self._address) as channel:
            service = kvblock_pb2_grpc.KVBlockServiceStub(channel)
            for name, epoch in list(self._to_come.items()):
                if now.get(name, epoch) == epoch:
                    continue
                del self._to_come[name]
                step = pb.EngineStep(free_sequence_ids=LATE_IDS)
                request = pb.StepRequest(engine=name, epoch=epoch, step=step)
                try:
                    service.Step(request, timeout=PATIENCE)
                except grpc.RpcError as error:
                    self._happened[f"late call answered {error.code().name}"] += 1
                else:
                    self._violations.append(f"a late call of {name} was carried out")

    def _kill_server(self) -> None:
        self._serving.kill()
        self._serving.start()
        self._happened["server killed"] += 1

    def _get_on(self) -> None:
        """Wait until every engine has made iterations that it had not made before."""
        before = {engine.name: engine.counts["iterations"] for engine in self._engines}
        deadline = time.monotonic() + PATIENCE
        for engine in self._engines:
            while engine.counts["iterations"] <= before[engine.name]:
                if time.monotonic() > deadline:
                    self._violations.append(f"{engine.name} does not get on")
                    break
                time.sleep(0.05)

    def _settle(self) -> None:
        """Nothing is held, and nothing is wrong, once leases and quarantines have ended."""
        deadline = time.monotonic() + PATIENCE
        with self._connect() as kv:
            while True:
                (pool,) = kv.stats().pools
                if not pool.held_blocks and not pool.quarantined_blocks:
                    break
                if time.monotonic() > deadline:
                    self._violations.append(f"{pool.held_blocks} blocks are held at the end")
                    break
                time.sleep(0.05)
            for report in kv.audit():
                self._violations += [f"audit: {one}" for one in report.violations]

    def _connect(self) -> kvblock.Client:
        return kvblock.connect(self._address, timeout=PATIENCE)
