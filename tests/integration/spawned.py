"""A server process whose start, signals and end are what a test is about."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.logs import no_warnings

POOL = "main:total=8,block_size=16,device=0"
LAST_RESORT = 60.0
"""Seconds after which a server that should have ended is taken for stuck."""


class Spawned:
    """A `kvblock serve`, ready or not."""

    def __init__(self, process: "subprocess.Popen[str]", stderr: IO[str]) -> None:
        self._process = process
        self._stderr = stderr

    def ready(self) -> list[str]:
        """The addresses of its ready line; it has to print one."""
        line = self.first_line()
        assert line.startswith("kvblock ready "), f"{line!r}\n{self.log()}"
        pairs = [word.partition("=") for word in line.split()[2:]]
        return [value for key, _, value in pairs if key == "listen"]

    def first_line(self) -> str:
        """The first line on its stdout, empty when it ends without one."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def end(self) -> int:
        """Its exit code, once it has ended by itself; nothing more may be on its stdout."""
        rest, _ = self._process.communicate(timeout=LAST_RESORT)
        assert rest == ""
        return self._process.returncode

    def log(self) -> str:
        """What is on its stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()


@contextmanager
def spawned(*arguments: str | Path, cwd: Path | None = None) -> Iterator[Spawned]:
    """Start a server that keeps no journal; it is killed at the end if it still runs.

    No warning may be in its log.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("KVBLOCK_")}
    env["KVBLOCK_EPHEMERAL"] = "true"
    command = [sys.executable, "-m", "kvblock", "serve", "--pool", POOL, *arguments]
    with (
        TemporaryFile("w+") as stderr,
        subprocess.Popen(
            command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        server = Spawned(process, stderr)
        try:
            yield server
        finally:
            process.kill()
        process.wait()
        no_warnings(server.log())
