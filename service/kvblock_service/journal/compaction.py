"""When a snapshot is made, and what follows.

Rules:
- `tick` does a little and returns at once; see `Snapshots` for who makes the snapshot.
- A snapshot is due after so many records, or bytes of them, since the last one: that bounds what a
  restart has to replay.
- Records are dropped after the snapshot that covers them is in place.
- What fails is logged, and tried again after a while; the journal grows meanwhile.
- All of it runs in the thread of the journal's owner, while an append may be on its way in another.
"""

import time
from contextlib import suppress
from typing import NamedTuple

from kvblock_service.journal.interface import Journal, JournalError, LogEvent, Made


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
        journal: Journal,
        limits: SnapshotLimits,
        request_ids_max: int,
        retry_seconds: float = 30.0,
    ) -> None:
        self._journal = journal
        self._limits = limits
        self._retry_seconds = retry_seconds
        self._snapshots = journal.snapshots(request_ids_max)
        self._bytes_before = 0
        self._bytes_at_start = 0
        self._wanted = False
        self._running = False
        # The position of a snapshot that was made, behind which nothing was dropped yet.
        self._covered: int | None = None
        self._not_before = 0.0
        # What fails here fails in the first tick as well, which logs it.
        with suppress(OSError):
            self._snapshots.prepare()

    @property
    def idle(self) -> bool:
        """Whether no snapshot is on its way."""
        return not self._wanted

    def tick(self) -> list[LogEvent]:
        """Do what is to be done now; answers what there is to log."""
        trouble = self._journal.trouble
        events = [
            LogEvent(
                "warning", "the maintenance of the journal's files has failed", {"problem": text}
            )
            for text in (trouble.pop(0) for _ in range(len(trouble)))
        ]
        if self._running:
            made = self._snapshots.made()
            if made is not None:
                events.append(self._ended(made))
        if time.monotonic() >= self._not_before:
            if self._covered is not None:
                events += self._compacted(self._covered)
            elif not self._running:
                events += self._begun()
        return events

    def stop(self) -> None:
        """End a snapshot that is on its way; the next start makes up for it."""
        self._snapshots.stop()
        self._running = self._wanted = False

    def _begun(self) -> list[LogEvent]:
        try:
            self._snapshots.prepare()
        except OSError as error:
            return [self._failed({"problem": f"no process can be started: {error}"})]
        self._wanted = self._wanted or self._due()
        if self._wanted:
            self._bytes_at_start = self._journal.bytes_written
            self._running = self._snapshots.begin()
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

    def _ended(self, made: Made) -> LogEvent:
        self._running = self._wanted = False
        if made.problem:
            return self._failed({"position": made.position, **made.problem})
        self._bytes_before = self._bytes_at_start
        self._covered = made.position
        seconds = round(made.seconds, 3)
        return LogEvent("info", "snapshot", {"position": made.position, "seconds": seconds})

    def _failed(
        self, fields: dict[str, object], event: str = "no snapshot could be made"
    ) -> LogEvent:
        """Try again later."""
        self._not_before = time.monotonic() + self._retry_seconds
        return LogEvent("warning", event, {**fields, "retry_seconds": self._retry_seconds})

    def _compacted(self, position: int) -> list[LogEvent]:
        """Drop what the snapshot at a position stands for."""
        try:
            self._journal.compact(position)
        except JournalError as error:
            event = "what a snapshot stands for could not be dropped"
            return [self._failed({"problem": str(error)}, event)]
        self._covered = None
        return []
