"""The engine processes: eight names, each of which has a process, sometimes two.

Rules:
- Each process is a life with a number of its own.
- A name whose process has ended gets a new one.
- A process that is stopped is resumed before the torture ends, unless it is killed.
"""

import os
import signal
from contextlib import suppress
from multiprocessing.process import BaseProcess
from random import Random

from tests.torture.processes import Forks, live
from tests.torture.setting import Setting

END_SECONDS = 30.0


class Life:
    """One engine process."""

    def __init__(self, name: str, number: int, process: BaseProcess) -> None:
        self.name = name
        self.number = number
        self.process = process
        self.stopped = False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)
        self.stopped = number is signal.SIGSTOP


class Crew:
    """All engine processes of one torture."""

    def __init__(
        self, setting: Setting, forks: Forks, addresses: list[str], random: Random
    ) -> None:
        self.setting = setting
        self._forks = forks
        self.names = [f"engine-{index}" for index in range(setting.engines)]
        self.lives: list[Life] = []
        self.failed: list[str] = []
        self._addresses = addresses
        self._random = random
        self._count = 0
        self._log = str(setting.path / "engines.log")
        for name in self.names:
            self.begin(name)

    def begin(self, name: str) -> Life:
        """Start a process for a name."""
        self._count += 1
        address = self._addresses[self._count % len(self._addresses)]
        process = self._forks.start(live, self.setting, name, self._count, address, self._log)
        life = Life(name, self._count, process)
        self.lives.append(life)
        return life

    def refill(self) -> None:
        """A process for each name that has none that runs."""
        for life in list(self.lives):
            code = life.process.exitcode
            if code is not None:
                self.lives.remove(life)
                if code not in (0, 3, -signal.SIGKILL):
                    self.failed.append(f"life {life.number} of {life.name} ended with {code}")
        running = {life.name for life in self.lives if not life.stopped}
        for name in self.names:
            if name not in running and not any(one.name == name for one in self.lives):
                self.begin(name)

    def victim(self) -> Life | None:
        """One that runs."""
        running = [life for life in self.lives if not life.stopped]
        return self._random.choice(running) if running else None

    def kill(self, life: Life) -> None:
        """SIGKILL; a new life begins."""
        life.process.kill()
        life.process.join()
        self.lives.remove(life)
        self.refill()

    def end(self) -> None:
        """Resume those that are stopped and ask all to end."""
        for life in self.lives:
            if life.stopped:
                life.signal(signal.SIGCONT)
            life.process.terminate()
        for life in self.lives:
            life.process.join(END_SECONDS)
            code = life.process.exitcode
            if code is None:
                self.failed.append(f"life {life.number} of {life.name} did not end")
                life.process.kill()
                life.process.join()
            # SIGTERM ends by itself only what has not begun yet, and so has done nothing.
            elif code not in (0, 3, -signal.SIGTERM):
                self.failed.append(f"life {life.number} of {life.name} ended with {code}")
        self.lives.clear()

    def close(self) -> None:
        """Leave nothing running."""
        for life in self.lives:
            life.process.kill()
            life.process.join()
