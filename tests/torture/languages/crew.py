"""The sample engines: processes that are started, killed, and read.

Rules:
- An engine's counts are those of the last line that each of its processes printed: what a process
  did after its last line, and before it was killed, is not counted.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[3]
OTHERS = ("go", "rust", "typescript", "java", "cpp")
LANGUAGES = ("python", *OTHERS)
COUNTS = ("iterations", "granted", "refused", "checked", "overwritten", "leases_lost")
PATIENCE = 60.0
"""Seconds that an engine has to end in, or to get on."""


class LanguageMissing(Exception):
    """A language's sample engine cannot be built here; the text says why."""


def command_of(language: str) -> list[str]:
    """The command line of a language's sample engine, which is built if need be.

    Raises:
        LanguageMissing: its tools are not here.

    """
    if language == "python":
        return [sys.executable, str(ROOT / "examples" / "engine.py")]
    script = ROOT / "scripts" / "languages" / f"{language}.sh"
    if not script.exists():
        raise LanguageMissing(f"{language}: there is no {script.relative_to(ROOT)}")
    missing = subprocess.run([script, "missing"], capture_output=True, text=True, check=True)
    if missing.stdout.strip():
        raise LanguageMissing(missing.stdout.strip())
    subprocess.run([script, "setup"], stdout=sys.stderr, check=True)
    built = subprocess.run([script, "engine"], stdout=subprocess.PIPE, text=True, check=True)
    return shlex.split(built.stdout.strip().splitlines()[-1])


class Engine:
    """One engine: a name, and one process after the other."""

    def __init__(self, language: str, command: list[str], address: str, log: Path) -> None:
        self.language, self.name = language, f"{language}-0"
        self.lives = 0
        self.ended_badly: list[str] = []
        self._command = [*command, "--address", address, "--engine", self.name]
        self._log = log
        self._total: Counter[str] = Counter()
        self._last: Counter[str] = Counter()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self, seed: int) -> None:
        """Start a process."""
        self.lives += 1
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._command, "--seed", str(seed)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    @property
    def counts(self) -> Counter[str]:
        """What all its processes have done."""
        return self._total + self._last

    def look(self) -> None:
        """Notice a process that has ended by itself, which none may."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            self.ended_badly.append(f"{self.name} has ended by itself with {code}")

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        """End its process in order."""
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._wait()
        except subprocess.TimeoutExpired:
            self.ended_badly.append(f"{self.name} does not end")
            self.kill()
            return
        if code:
            self.ended_badly.append(f"{self.name} ends with {code}")

    def _wait(self) -> int:
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._total, self._last = self._total + self._last, Counter()
        return code

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                # A process that is killed may end in the middle of one.
                if line.endswith("}\n"):
                    told = json.loads(line)
                    self._last = Counter({name: told[name] for name in COUNTS})
