"""A server whose disk takes as long over each write as the test likes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.processes import serving
from tests.integration.sessions.wire import Wire

_PROGRAM = """
import os, sys, time
from kvblock_cli import main
from kvblock_service.journal.file_journal import FileJournal

def append(journal, after, records, really=FileJournal.append):
    while os.path.exists(sys.held):
        time.sleep(0.001)
    return really(journal, after, records)

FileJournal.append = append
sys.held, log = sys.argv[1:3]
sys.argv[:3] = ["kvblock"]
os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
del os.environ["KVBLOCK_EPHEMERAL"]
main()
"""
ROUND_TRIPS = 20
"""Calls that are answered meanwhile, so that an answer that did not wait is there."""


class SlowDisk:
    """A server with `--durability host`, the way to it, and the hold on its disk."""

    def __init__(self, address: str, held: Path, log: Path) -> None:
        self.wire = Wire(address)
        self.log = log
        self._held = held

    def hold(self) -> None:
        """No write ends from now on."""
        self._held.touch()

    def let_go(self) -> None:
        """Writes end again."""
        self._held.unlink()

    def answers(self) -> None:
        """Let the server do what it does without its disk."""
        for _ in range(ROUND_TRIPS):
            self.wire.kv.CanAllocate(pb.CanAllocateRequest())


@contextmanager
def slow_disk(folder: Path, *arguments: str) -> Iterator[SlowDisk]:
    """Runs such a server for the block."""
    listen = f"unix:{folder / 'kvblock.sock'}"
    options = ["serve", "--pool", "main:total=64", "--listen", listen, "--durability", "host"]
    options += ["--state-dir", str(folder / "state"), *arguments]
    held, log = folder / "held", folder / "log"
    with serving(sys.executable, "-c", _PROGRAM, held, log, *options):
        disk = SlowDisk(listen, held, log)
        try:
            yield disk
        finally:
            held.unlink(missing_ok=True)
            disk.wire.channel.close()
