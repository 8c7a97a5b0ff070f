"""Runs tests of a copy of the sources, in forks of a process that has loaded the libraries.

Rules:
- The process has loaded what kvblock and its tests need, and nothing of theirs: the tests that a
  fork runs load those anew.
- Tests that hang are killed, and count as failed.
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from hypothesis import Phase, settings

PATIENCE = 300
"""Seconds after which tests are taken to hang."""
LIBRARIES = (
    *("google.protobuf.json_format", "google.rpc.status_pb2", "grpc.aio", "grpc_status"),
    *("hypothesis.stateful", "opentelemetry.sdk.metrics", "opentelemetry.sdk.trace"),
    *("pydantic", "pytest", "rich.table", "structlog", "trustme", "typer", "yaml"),
)
ARGUMENTS = ("-x", "-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported")
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_OUTPUT_MAX = 2000


class Verdict(NamedTuple):
    """What tests say of a mutation: it is `caught`, has `survived`, or has them `broken`.

    `by`: the first test that failed, or what was wrong.
    """

    kind: str
    by: str


class Runner:
    """The process; it ends with the block."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        # A source that changes twice in a moment must not be taken for what was compiled before.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment.pop("PYTHONPYCACHEPREFIX", None)
        self._process = subprocess.Popen(
            [copy / ".venv/bin/python", "-m", "tests.mutations.runner"],
            cwd=copy,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, tests: list[str], patience: int = PATIENCE) -> Verdict:
        """Run tests, up to the first that fails; a patience of 0 has no end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([patience, tests]) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        output = (self.copy / "output").read_text(errors="replace")
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            return Verdict("caught", "the tests hang")
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return Verdict("survived", "")
        failed = _FIRST_FAILURE.search(output)
        if code == 1 and failed:
            return Verdict("caught", failed[1])
        return Verdict("broken", output.strip()[-_OUTPUT_MAX:])


def serve() -> int:
    """Run what is asked for on stdin; answers the exit code, in a fork that of its tests."""
    for library in LIBRARIES:
        importlib.import_module(library)
    # That a test fails is enough: a smaller example of it takes longer than all else.
    settings.register_profile("unshrunk", deadline=None, phases=set(Phase) - {Phase.shrink})
    settings.load_profile("unshrunk")
    for line in sys.stdin:
        patience, tests = json.loads(line)
        pid = os.fork()
        if not pid:
            signal.alarm(patience)
            output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for stream in (1, 2):
                os.dup2(output, stream)
            import pytest

            return pytest.main([*ARGUMENTS, *tests])
        _, status = os.waitpid(pid, 0)
        print(status, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(serve())
