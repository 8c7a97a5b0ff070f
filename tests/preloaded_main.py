"""The process that has loaded everything, and forks: `python -m tests.preloaded_main DESCRIPTOR`.

Rules:
- It loads every module of the service and of the command line, under the variables with which the
  program itself loads gRPC, and starts neither gRPC nor a thread.
- A fork runs what `python -m kvblock` or the installed script runs, as the main program: the
  interpreter ends it as usual.
- It ends when nobody is left who could ask it.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
from typing import Any, NamedTuple

import kvblock_cli

PACKAGES = ("kvblock", "kvblock_cli", "kvblock_replay", "kvblock_service")
REQUEST_BYTES_MAX = 1 << 20
DESCRIPTORS_MAX = 1024
"""More than this process has opened."""


class Request(NamedTuple):
    """A process that is asked for."""

    words: list[str]
    environment: "dict[str, str]"
    directory: str
    umask: int
    new_session: bool


def load() -> None:
    """Load all modules of kvblock, as its program would."""
    for name, value in kvblock_cli._GRPC.items():
        os.environ.setdefault(name, value)
    for package in map(importlib.import_module, PACKAGES):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def fork_on_request(control: socket.socket) -> "tuple[Request, list[int]]":
    """Serve requests; comes back in each fork, with what was asked for."""
    while True:
        data, streams, _, _ = socket.recv_fds(control, REQUEST_BYTES_MAX, 3)
        if not data:
            os._exit(0)
        between = os.fork()
        if not between:
            pid = os.fork()
            if not pid:
                asked: dict[str, Any] = json.loads(data)
                return Request(**asked), streams
            control.send(b"%d" % pid)
            os._exit(0)
        os.waitpid(between, 0)
        control.send(b"alone")
        for stream in streams:
            os.close(stream)


def become(request: Request, streams: list[int]) -> None:
    """Let this process be as if it had been started by itself."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), DESCRIPTORS_MAX)
    if request.new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.umask(request.umask)
    os.chdir(request.directory)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.stdin = standard_stream(0, "r", "strict", -1)
    sys.stdout = standard_stream(1, "w", "strict", 1 if os.isatty(1) else -1)
    sys.stderr = standard_stream(2, "w", "backslashreplace", 1)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    sys.argv = list(request.words)


def standard_stream(descriptor: int, mode: str, errors: str, buffering: int) -> Any:
    """A standard stream, as the interpreter makes it."""
    encoding = sys.__stdout__.encoding if sys.__stdout__ else None
    return open(descriptor, mode, buffering, encoding=encoding, errors=errors, closefd=False)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load()
    control = socket.socket(fileno=int(sys.argv[1]))
    request, streams = fork_on_request(control)
    control.detach()
    become(request, streams)
    if request.words[0] == "kvblock":
        sys.path[0] = request.directory
        runpy.run_module("kvblock", run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(request.words[0])
        runpy.run_path(request.words[0], run_name="__main__")
