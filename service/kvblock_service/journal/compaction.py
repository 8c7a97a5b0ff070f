"""When a snapshot is made, and what follows: the server's side of `compact`.

Rules:
- `tick` does a little and returns at once; the snapshot itself is the work of another process.
- A snapshot is due after so many records, or bytes of them, since the last one: that bounds what a
  restart has to replay.
- Records are dropped after the snapshot that covers them is in place.
- A snapshot that failed is told, and tried again after a while; the journal grows meanwhile.
"""

import subprocess
import sys
import time
from typing import NamedTuple

from kvblock_service.journal.facts import Fact
from kvblock_service.journal.sqlite import SqliteJournal

_STDERR_SHOWN = 2000


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
        journal: SqliteJournal,
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
        self._child: subprocess.Popen[str] | None = None
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
        if self._child is not None:
            if self._child.poll() is not None:
                facts.append(self._finish(self._child))
        elif self._target is not None:
            if self._journal.sealed_position >= self._target:
                self._spawn(self._target)
        elif self._due() and time.monotonic() >= self._not_before and self._journal.rotate():
            self._target = self._journal.position
        return facts

    def stop(self) -> None:
        """End a snapshot that is on its way; the next start makes up for it."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None
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
        self._child = subprocess.Popen(
            [sys.executable, "-m", "kvblock_service.journal.compact", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, child: "subprocess.Popen[str]") -> Fact:
        _, stderr = child.communicate()
        position, self._target, self._child = self._target, None, None
        assert position is not None
        seconds = round(time.monotonic() - self._started, 3)
        if child.returncode:
            self._not_before = time.monotonic() + self._retry_seconds
            fields = {
                "position": position,
                "exit_code": child.returncode,
                "problem": stderr.strip()[-_STDERR_SHOWN:],
                "retry_seconds": self._retry_seconds,
            }
            return Fact("warning", "no snapshot could be made", fields)
        self._bytes_before = self._bytes_at_start
        self._journal.truncate(position)
        return Fact("info", "snapshot", {"position": position, "seconds": seconds})
