"""When a snapshot is made, and what follows: the server's side of `compact`.

Rules:
- `tick` does a little and returns at once; the snapshot itself is the work of another process.
- A snapshot is due after so many records, or bytes of them, since the last one: that bounds what a
  restart has to replay.
- Records are dropped after the snapshot that covers them is in place.
- Processes are started at the start, not while the server serves: the one that `compact` calls
  `serve` runs the snapshots.
- A snapshot that failed is told, and tried again after a while; the journal grows meanwhile.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from kvblock_service.journal.facts import Fact
from kvblock_service.journal.file_journal import FileJournal

_ANSWER_MAX = 65_536


class SnapshotLimits(NamedTuple):
    """A snapshot is due after `records`, or `bytes` in records, since the last one."""

    records: int
    bytes: int


class Compactor:
    """Has snapshots made of one journal; `tick` it several times a second.

    `request_ids_max` is that of the pools' bounds; `retry_seconds` is how long it waits after a
    failure.
    """

    def __init__(
        self,
        journal: FileJournal,
        limits: SnapshotLimits,
        request_ids_max: int,
        retry_seconds: float = 30.0,
    ) -> None:
        self._journal = journal
        self._limits = limits
        self._request_ids_max = request_ids_max
        self._retry_seconds = retry_seconds
        self._bytes_before = 0
        self._target: int | None = None
        self._running = False
        self._helper = _started_helper()
        self._started = 0.0
        self._bytes_at_start = 0
        self._not_before = 0.0

    @property
    def idle(self) -> bool:
        """Whether no snapshot is on its way."""
        return self._target is None

    def tick(self) -> list[Fact]:
        """Do what is to be done now; answers what there is to log."""
        trouble = self._journal.trouble
        facts = [
            Fact("warning", "the journal's files could not be kept in order", {"problem": text})
            for text in (trouble.pop(0) for _ in range(len(trouble)))
        ]
        if self._running:
            fact = self._ended()
            facts += [fact] if fact else []
        elif self._target is not None:
            if self._journal.sealed_position >= self._target:
                self._spawn(self._target)
        elif self._due() and time.monotonic() >= self._not_before:
            self._target = self._journal.rotate()
        return facts

    def stop(self) -> None:
        """End a snapshot that is on its way; the next start makes up for it."""
        _end(self._helper)
        self._running = False
        self._target = None

    def _due(self) -> bool:
        journal = self._journal
        records = journal.position - journal.snapshot_position
        if records <= 0:
            return False
        return (
            records >= self._limits.records
            or journal.bytes_written - self._bytes_before >= self._limits.bytes
        )

    def _spawn(self, position: int) -> None:
        journal = self._journal
        arguments = (
            journal.directory,
            journal.server_epoch,
            position,
            self._request_ids_max,
            "host" if journal.synced else "process",
        )
        self._started = time.monotonic()
        self._bytes_at_start = journal.bytes_written
        self._running = True
        assert self._helper.stdin is not None
        # A helper that is gone is noticed when its answer is read.
        with suppress(BrokenPipeError):
            self._helper.stdin.write(json.dumps([str(part) for part in arguments]).encode() + b"\n")

    def _ended(self) -> Fact | None:
        """What became of the snapshot, when it has ended."""
        assert self._helper.stdout is not None
        try:
            line = os.read(self._helper.stdout.fileno(), _ANSWER_MAX)
        except BlockingIOError:
            return None
        if line:
            answer = json.loads(line)
            exit_code, stderr = answer["exit_code"], answer["stderr"].strip()
        else:
            _end(self._helper)
            exit_code, stderr = self._helper.returncode, "the helper process is gone"
            self._helper = _started_helper()
        position, self._target, self._running = self._target, None, False
        assert position is not None
        if exit_code:
            self._not_before = time.monotonic() + self._retry_seconds
            fields = {
                "position": position,
                "exit_code": exit_code,
                "problem": stderr,
                "retry_seconds": self._retry_seconds,
            }
            return Fact("warning", "no snapshot could be made", fields)
        self._bytes_before = self._bytes_at_start
        self._journal.truncate(position)
        seconds = round(time.monotonic() - self._started, 3)
        return Fact("info", "snapshot", {"position": position, "seconds": seconds})


def _started_helper() -> "subprocess.Popen[bytes]":
    helper = subprocess.Popen(
        [sys.executable, "-m", "kvblock_service.journal.compact", "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        # Ctrl-C is meant for the server; and one signal ends the helper with its snapshot.
        start_new_session=True,
    )
    assert helper.stdout is not None
    os.set_blocking(helper.stdout.fileno(), False)
    return helper


def _end(helper: "subprocess.Popen[bytes]") -> None:
    if helper.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(helper.pid, signal.SIGKILL)
    helper.wait()
    for stream in (helper.stdin, helper.stdout):
        if stream is not None:
            stream.close()
