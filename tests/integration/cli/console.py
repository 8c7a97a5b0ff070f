"""Runs the command line as a user does, against one server."""

import os
import pty
import subprocess
import sys
from dataclasses import dataclass

from tests.integration.processes import plain_environment
from tests.logs import no_faults

KVBLOCK = [sys.executable, "-m", "kvblock"]


@dataclass(frozen=True)
class Console:
    """A shell whose KVBLOCK_ADDRESS names a server."""

    address: str

    def environment(self) -> dict[str, str]:
        return plain_environment() | {"KVBLOCK_ADDRESS": self.address}

    def run(self, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command, which has to exit with the expected code and without a traceback."""
        done = subprocess.run(
            [*KVBLOCK, *map(str, arguments)],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}\n{done.stdout}{done.stderr}"
        no_faults(done.stderr)
        return done

    def typed(self, answer: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command with a terminal to ask on, at which somebody types an answer."""
        ours, theirs = pty.openpty()
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [*KVBLOCK, *map(str, arguments)],
            env=self.environment(),
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(ours)
        os.close(theirs)
        return done

    def out(self, *arguments: object, expect: int = 0) -> str:
        """What a command prints; nothing goes to stderr."""
        done = self.run(*arguments, expect=expect)
        assert done.stderr == ""
        return done.stdout

    def error(self, *arguments: object, expect: int) -> str:
        """What a command complains about; nothing goes to stdout."""
        done = self.run(*arguments, expect=expect)
        assert done.stdout == ""
        return done.stderr

    def on_terminal(self, *arguments: object, **variables: str) -> str:
        """What a command shows on a terminal."""
        ours, theirs = pty.openpty()
        shown = b""
        environment = {key: v for key, v in self.environment().items() if key != "NO_COLOR"}
        with subprocess.Popen(
            [*KVBLOCK, *map(str, arguments)],
            env=environment | {"TERM": "xterm", "COLUMNS": "100"} | variables,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ):
            os.close(theirs)
            try:
                while part := os.read(ours, 65_536):
                    shown += part
            except OSError:  # Linux's way to say that the other end is closed
                pass
        os.close(ours)
        return shown.decode()
