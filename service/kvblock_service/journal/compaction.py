"""When a snapshot is made, and what follows: the server's side of `compact`.

Rules:
- `tick` does a little and returns at once; the snapshot itself is the work of another process.
- A snapshot is due after so many records, or bytes of them, since the last one: that bounds what a
  restart has to replay.
- Records are dropped after the snapshot that covers them is in place.
- Processes are started at the start, not while the server serves: the one that `compact` calls
  `serve` runs the snapshots.
- What fails is told, and tried again after a while: a snapshot, the start of its process, and the
  look for what may be dropped. The journal grows meanwhile.
- All of it runs in the thread of the journal's owner, while a write may be on its way in another.
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
from kvblock_service.journal.interface import JournalError

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
        # The position of the snapshot that is on its way, and that of one that was made, behind
        # which nothing was dropped yet.
        self._target: int | None = None
        self._covered: int | None = None
        self._running = False
        self._started = 0.0
        self._bytes_at_start = 0
        self._not_before = 0.0
        self._helper: subprocess.Popen[bytes] | None = None
        # What fails here fails in the first tick as well, which tells it.
        with suppress(OSError):
            self._helper = _started_helper()

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
            facts += self._ended()
        if self._covered is not None:
            facts += self._dropped(self._covered)
        elif not self._running and time.monotonic() >= self._not_before:
            facts += self._begun()
        return facts

    def stop(self) -> None:
        """End a snapshot that is on its way; the next start makes up for it."""
        if self._helper is not None:
            _end(self._helper)
        self._helper = None
        self._running = False
        self._target = None

    def _begun(self) -> list[Fact]:
        """Do what comes before the snapshot."""
        if self._helper is None:
            try:
                self._helper = _started_helper()
            except OSError as error:
                return [self._failed({"problem": f"no process can be started: {error}"})]
        if self._target is None:
            if self._due():
                self._target = self._journal.rotate()
        elif self._journal.sealed_position >= self._target:
            self._spawn(self._helper, self._target)
        return []

    def _due(self) -> bool:
        journal = self._journal
        records = journal.position - journal.snapshot_position
        if records <= 0:
            return False
        return (
            records >= self._limits.records
            or journal.bytes_written - self._bytes_before >= self._limits.bytes
        )

    def _spawn(self, helper: "subprocess.Popen[bytes]", position: int) -> None:
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
        assert helper.stdin is not None
        # A helper that is gone is noticed when its answer is read.
        with suppress(BrokenPipeError):
            helper.stdin.write(json.dumps([str(part) for part in arguments]).encode() + b"\n")

    def _ended(self) -> list[Fact]:
        """What became of the snapshot, when it has ended."""
        helper = self._helper
        assert helper is not None
        assert helper.stdout is not None
        try:
            line = os.read(helper.stdout.fileno(), _ANSWER_MAX)
        except BlockingIOError:
            return []
        if line:
            answer = json.loads(line)
            exit_code, stderr = answer["exit_code"], answer["stderr"].strip()
        else:
            _end(helper)
            exit_code, stderr = helper.returncode, "the helper process is gone"
            self._helper = None
        position, self._target, self._running = self._target, None, False
        assert position is not None
        if exit_code:
            fields = {"position": position, "exit_code": exit_code, "problem": stderr}
            return [self._failed(fields)]
        self._bytes_before = self._bytes_at_start
        self._covered = position
        seconds = round(time.monotonic() - self._started, 3)
        return [Fact("info", "snapshot", {"position": position, "seconds": seconds})]

    def _failed(self, fields: dict[str, object]) -> Fact:
        """Try again later."""
        self._not_before = time.monotonic() + self._retry_seconds
        fields["retry_seconds"] = self._retry_seconds
        return Fact("warning", "no snapshot could be made", fields)

    def _dropped(self, position: int) -> list[Fact]:
        """Have dropped what the snapshot at a position stands for."""
        if time.monotonic() < self._not_before:
            return []
        try:
            self._journal.truncate(position)
        except JournalError as error:
            self._not_before = time.monotonic() + self._retry_seconds
            fields = {"problem": str(error), "retry_seconds": self._retry_seconds}
            return [Fact("warning", "what a snapshot stands for could not be dropped", fields)]
        self._covered = None
        return []


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
