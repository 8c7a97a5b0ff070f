"""The runner's side of the drivers on the clients, and which clients this run asks.

`TEST_LANGUAGES=go,rust` names them; without it, it is the Python client, and only with the vectors
of single calls. A driver of another language is what `scripts/languages/LANG.sh driver` builds, in
this checkout or, while one is being written, in that of `KVBLOCK_LANGUAGES_ROOT`.
"""

import fcntl
import json
import os
import select
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.conformance.cases import Json
from tests.conformance.driving import ROOT

PATIENCE = 120.0
"""Seconds after which a driver that has not answered is taken for stuck."""
PYTHON = {"python": "sync", "asyncio": "asyncio"}
OTHERS = ("go", "rust", "typescript", "java", "cpp")
LANGUAGES = [*PYTHON, *OTHERS]
LACKS: Mapping[str, frozenset[str]] = dict.fromkeys(
    ("go", "typescript", "java"), frozenset({"block_pool", "fork"})
)
"""What a language has no use for: only these lines may be answered with `unsupported`."""

QUICK = "TEST_LANGUAGES" not in os.environ
"""Whether the run is to be short: one client then, and the vectors of single calls only."""
ASKED = os.environ.get("TEST_LANGUAGES", "python").split(",")
assert set(ASKED) <= {*LANGUAGES}, f"TEST_LANGUAGES names one of {', '.join(LANGUAGES)}"
CHECKOUT = Path(os.environ.get("KVBLOCK_LANGUAGES_ROOT", ROOT))
"""The one that has the clients in other languages."""
SCRIPTS = CHECKOUT / "scripts" / "languages"


def why_missing(language: str) -> str | None:
    """Why a language's driver cannot be built here; None when it can."""
    if language in PYTHON:
        return None
    script = SCRIPTS / f"{language}.sh"
    if not script.exists():
        return f"there is no {script}"
    asked = subprocess.run([script, "missing"], stdout=subprocess.PIPE, text=True, check=False)
    said = asked.stdout.strip()
    return said or (f"{script} missing ends with {asked.returncode}" if asked.returncode else None)


def command_of(language: str, folder: Path) -> list[str]:
    """The command line of a driver, which is built by the first process that asks for it."""
    if language in PYTHON:
        return [sys.executable, "-m", "tests.conformance.drivers.python_client", PYTHON[language]]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = folder / "command"
        if not told.exists():
            build = subprocess.run(
                [SCRIPTS / f"{language}.sh", "driver"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            told.write_text(build.stdout.strip().splitlines()[-1])
        return shlex.split(told.read_text())


class ClientDriver:
    """A driver on a client; it is started when it is first asked, and again when it has died."""

    def __init__(self, language: str, folder: Path, **environment: str) -> None:
        self.language = language
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._made: list[str] = []
        self._making: str | None = None

    def with_environment(self, environment: Mapping[str, str]) -> "ClientDriver":
        """Another one like it, with more variables."""
        return ClientDriver(self.language, self._folder, **environment)

    def ask(self, line: Json) -> Json:
        """What a line is answered."""
        self.send(line)
        return self.receive()

    def send(self, line: Json) -> None:
        """Let it begin with a line."""
        self._making = line["as"] if line["do"] in ("connect", "attach") else None
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"the driver of {self.language} has ended") from None

    def receive(self, patience: float = PATIENCE) -> Json:
        """What the line is answered that it has begun with."""
        process = self._running()
        assert process.stdout is not None
        number = process.stdout.fileno()
        while b"\n" not in self._read:
            if not select.select([number], [], [], patience)[0]:
                self._kill()
                raise AssertionError(f"the driver of {self.language} does not answer")
            more = os.read(number, 1 << 16)
            if not more:
                code = process.wait()
                self._kill()
                raise AssertionError(f"the driver of {self.language} has ended with {code}")
            self._read += more
        text, _, self._read = self._read.partition(b"\n")
        answer: Any = json.loads(text)
        assert isinstance(answer, dict), text
        assert len(answer) == 1, text
        assert answer.keys() <= {"ok", "error"}, text
        if "ok" in answer and self._making is not None:
            self._made.append(self._making)
        self._making = None
        return answer

    def let_go(self) -> None:
        """Close the sessions and clients that were made; what is answered is nobody's business."""
        made, self._made = self._made, []
        if self._process is not None:
            for name in reversed(dict.fromkeys(made)):
                self.ask({"do": "close", "on": name})

    def end(self) -> None:
        """Let it end by itself, as it has to when nothing more is to be read."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            code = self._process.wait(PATIENCE)
            self._kill()
            assert code == 0, f"the driver of {self.language} ends with {code}"

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._folder.mkdir(exist_ok=True)
            self._process = subprocess.Popen(
                command_of(self.language, self._folder),
                cwd=ROOT,
                env=os.environ | self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process

    def _kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                # What it was still to be told.
                continue
        self._process, self._read, self._made = None, b"", []
