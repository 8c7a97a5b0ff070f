"""The other processes of a benchmark: started, waited for, and ended.

Rules:
- A child is ready when it has written a line that holds a text known beforehand, in any case;
  what it writes afterwards is not read, so only processes that write little may be started here.
- It is ended with SIGTERM by whoever started it, also when the benchmark fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE
from threading import Timer

from benchmarks import echo
from benchmarks.placement import client_core, server_core
from benchmarks.workload import BenchError

_START_SECONDS = 30.0


@contextmanager
def child(
    command: Sequence[str],
    ready: str,
    place: Callable[[], AbstractContextManager[None]] = server_core,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a process while the block lasts; gives the line that says it is ready.

    Raises:
        BenchError: it ended, or did not get ready in time; the text holds what it wrote.

    """
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile("w+"))
        with place():
            process = stack.enter_context(
                subprocess.Popen(command, stdout=PIPE, stderr=errors, text=True, env=environment)
            )
        timer = Timer(_START_SECONDS, process.kill)
        timer.start()
        assert process.stdout is not None
        read = []
        for line in process.stdout:
            read.append(line)
            if ready.lower() in line.lower():
                break
        else:
            timer.cancel()
            errors.seek(0)
            text = "".join(read) + errors.read()
            raise BenchError(f"{command[0]} did not start:\n{text.strip()}")
        timer.cancel()
        try:
            yield read[-1].rstrip("\n")
        finally:
            process.terminate()


@contextmanager
def echo_server(address: str, *, tuned: bool) -> Iterator[str]:
    """An echo server at `unix:PATH` or `HOST:PORT`; gives the address with the port it got.

    `tuned`: with the set-up of `kvblock serve`, else as one gets it.
    """
    command = [sys.executable, "-m", "benchmarks.echo", address, *(["tuned"] if tuned else [])]
    environment = dict(os.environ)
    if not tuned:
        environment.pop("GRPC_EXPERIMENTS", None)
    with child(command, echo.READY, environment=environment) as line:
        yield line.removeprefix(echo.READY)


@contextmanager
def collector() -> Iterator[str]:
    """A collector of telemetry that throws everything away; gives its HOST:PORT.

    It has next to nothing to do, and does it where the client runs, not beside the servers.
    """
    command = [sys.executable, "-m", "benchmarks.echo", "127.0.0.1:0"]
    with child(command, echo.READY, client_core) as line:
        yield line.removeprefix(echo.READY)


@contextmanager
def private_directory() -> Iterator[Path]:
    """A directory of our own, for sockets; their paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="kvblock-bench-") as directory:
        yield Path(directory)
