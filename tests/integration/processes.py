"""Runs commands as their users do, in an environment that configures nothing."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, expect: int = 0, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The output of a command, which has to exit with the expected code; `env` is added to its."""
    variables = plain_environment() | dict(env or {})
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{command}\n{done.stdout}{done.stderr}"
    return done


@contextmanager
def serving(*command: str | Path) -> Iterator[list[str]]:
    """Runs a server for the block; gives the addresses that its ready line names.

    SIGTERM ends it, and it has to exit with 0.
    """
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=plain_environment()
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("kvblock ready "), f"{ready!r}\n{written(log)}"
            facts = [fact.partition("=") for fact in ready.split()[2:]]
            yield [value for key, _, value in facts if key == "listen"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0, written(log)
        finally:
            process.kill()


def written(log: IO[str]) -> str:
    log.seek(0)
    return log.read()


def plain_environment() -> dict[str, str]:
    """The environment without what would configure kvblock or lead Python elsewhere.

    Servers keep nothing, unless a test says otherwise: a journal has one server at a time.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("KVBLOCK_", "OTEL_", "PYTHON", "VIRTUAL_ENV"))
    }
    return kept | {"KVBLOCK_EPHEMERAL": "true"}
