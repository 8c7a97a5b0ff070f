"""A reader at a terminal: runs code blocks one after the other in an empty directory.

Variables that a block exports are there in the next one. A block that starts a server runs beside
the others until the next server starts, or until the end; then it has to exit with 0 on SIGTERM.
Servers have a journal in a directory of the reader's.
"""

from __future__ import annotations

import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.integration.processes import plain_environment
from tests.logs import no_warnings

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 120


class Terminal:
    """`directory` has to be empty; it holds the reader's files.

    A block may take `timeout` seconds, and finds more variables in its environment.
    """

    def __init__(
        self, directory: Path, *, timeout: float = TIMEOUT_SECONDS, **variables: str
    ) -> None:
        self._timeout = timeout
        self.home = directory / "home"
        self.home.mkdir()
        self._variables = directory / "variables.sh"
        self._variables.touch()
        self._log = directory / "server.log"
        self._server: subprocess.Popen[str] | None = None
        tools = directory / "tools"
        tools.mkdir()
        grpcurl = tools / "grpcurl"
        grpcurl.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "grpcurl.py"} "$@"\n')
        grpcurl.chmod(stat.S_IRWXU)
        self._environment = plain_environment()
        path = [str(tools), str(Path(sys.executable).parent), self._environment["PATH"]]
        self._environment["PATH"] = ":".join(path)
        del self._environment["KVBLOCK_EPHEMERAL"]
        self._environment["KVBLOCK_STATE_DIR"] = str(directory / "state")
        self._environment.update(variables)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop_server()
        elif self._server is not None:
            self._server.kill()
            self._server.communicate()

    def shell(self, commands: str) -> str:
        """What commands print; they all have to succeed."""
        keep = f"trap 'export -p >{shlex.quote(str(self._variables))}' EXIT"
        return self._run(f"set -euo pipefail\n{keep}\n{commands}")

    def python(self, program: str) -> str:
        """What a Python program prints; it has to succeed."""
        return self._run(f"exec python -c {shlex.quote(program)}")

    def start_server(self, command: str) -> str:
        """Start a server in the background; answers its first line."""
        self.stop_server()
        with self._log.open("w") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.home,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"{command}\n{self._log.read_text()}"
        return line

    def stop_server(self) -> None:
        """End the server, if one runs."""
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            self._server.communicate(timeout=TIMEOUT_SECONDS)
            log = self._log.read_text()
            assert self._server.returncode == 0, log
            no_warnings(log)
            self._server = None

    def _run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(self._variables))}\n{script}"],
            cwd=self.home,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self._timeout,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout
