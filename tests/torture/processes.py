"""How servers and engines are started: forked from a process that has loaded everything.

Rules:
- A server that is killed every few seconds spends its time serving, not loading; what it runs is
  `kvblock serve`, from its arguments on.
- Plants are applied in the process of the server or of the engine, never kept in their code.
- Servers have a wall clock that `set_wall_clock` moves, where libfaketime is installed; their
  monotonic clock is the host's. Engines are left alone: libfaketime breaks their sleep.
- What they print on stderr goes to a log.
- They end when the process that asked for them is gone, so that a torture that is killed leaves
  nothing behind but processes that it had stopped.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.torture.setting import Setting

_CONTEXT = multiprocessing.get_context("forkserver")
FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)
GRPC = {"GRPC_VERBOSITY": "NONE", "GRPC_EXPERIMENTS": "-event_engine_poller_for_python"}


class Forks:
    """A process that has loaded some modules, and forks others."""

    def __init__(self, modules: list[str], environment: dict[str, str]) -> None:
        self._server = forkserver.ForkServer()
        self._server.set_forkserver_preload(modules)
        before = dict(os.environ)
        for name in [name for name in before if name.startswith("KVBLOCK_")]:
            del os.environ[name]
        os.environ.update(GRPC | environment)
        try:
            self._server.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        """A new process that runs a function."""
        process = _CONTEXT.Process(target=target, args=arguments)
        usual = forkserver.connect_to_new_process
        # The standard library has one fork server for all; this one has an environment of its own.
        forkserver.connect_to_new_process = self._server.connect_to_new_process
        try:
            process.start()
        finally:
            forkserver.connect_to_new_process = usual
        return process


def engine_forks() -> Forks:
    """Where engines come from."""
    return Forks(["tests.torture.engine"], {})


def server_forks(setting: Setting) -> tuple[Forks, bool]:
    """Where servers come from, and whether their wall clock can be moved."""
    faketime = next((path for path in FAKETIME if Path(path).exists()), None)
    set_wall_clock(setting, 0)
    environment = {
        "FAKETIME_TIMESTAMP_FILE": str(setting.path / "faketime"),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
    }
    if faketime:
        environment["LD_PRELOAD"] = faketime
    modules = ["kvblock_cli.app", "kvblock_service.main"]
    return Forks(modules, environment), faketime is not None


def set_wall_clock(setting: Setting, seconds: float) -> None:
    """Let the wall clock be so far off."""
    (setting.path / "faketime").write_text(f"{seconds:+.0f}\n")


def serve(plant: str, arguments: list[str], log: str, out: "connection.Connection") -> None:
    """A server's process: its stdout is `out`."""
    _begin(log)
    os.dup2(out.fileno(), 1)
    from tests.torture.planted import plant as plant_in_server

    plant_in_server(plant)
    sys.argv = ["kvblock", "serve", *arguments]
    from kvblock_cli import main

    main()


def live(setting: Setting, name: str, life: int, address: str, log: str) -> None:
    """An engine's process."""
    _begin(log)
    from tests.torture.engine import Engine
    from tests.torture.planted import plant_in_client

    plant_in_client(setting.plant)
    sys.exit(Engine(setting, name, life, address).run())


def _begin(log: str) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), name="lifeline", daemon=True).start()
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
