"""A journal in memory, for tests and simulations: it fails, crashes and tears on demand.

Rules:
- It keeps the interface's promises; `restarted` gives what the next process would find.
- Which position was acknowledged last is kept apart from the records, as in `end_file`.
- A fault is asked for beforehand, and happens once.
- Its snapshots are made in this process, by what `compact` does in another one.
"""

import time
from collections.abc import Iterator, Sequence

from kvblock_service.journal.compact import compact
from kvblock_service.journal.interface import (
    Entry,
    JournalDamaged,
    JournalError,
    Made,
    OutcomeUnknown,
    PositionTaken,
)


class Crash(BaseException):
    """The process is gone at this point, as far as a test is concerned."""


class MemoryJournal:
    """A journal that lives as long as its object.

    `acknowledged`: the last position of an append that has returned. Faults, asked for by
    attribute: `fail_with`: a text; every append raises JournalError with it until it is None again.
    `lose_answer`: the next append raises OutcomeUnknown; True: it is made, False: it is not.
    `crash_after`: that many appends from now, the process dies right after making one (0: after the
    next). `tear`: it dies in the middle of that one, whose last record is torn, and therefore none.
    """

    def __init__(self, server_epoch: int = 1, *, synced: bool = False) -> None:
        self.synced = synced
        self.bytes_written = 0
        self.trouble: list[str] = []
        self.bug: Exception | None = None
        self.acknowledged = 0
        self.closed = False
        self.commits = 0
        self.fail_with: str | None = None
        self.lose_answer: bool | None = None
        self.crash_after: int | None = None
        self.tear = False
        self._server_epoch = server_epoch
        self._records: list[bytes] = []
        self._dropped = 0
        self._snapshot: tuple[int, bytes] | None = None

    @property
    def server_epoch(self) -> int:
        """The epoch it was made with."""
        return self._server_epoch

    @property
    def position(self) -> int:
        """The position of the last record."""
        return self._dropped + len(self._records)

    @property
    def snapshot_position(self) -> int:
        """What the snapshot stands for."""
        return self._snapshot[0] if self._snapshot else 0

    @property
    def space_taken(self) -> int:
        """Bytes of all records and the snapshot."""
        return sum(map(len, self._records)) + len(self.snapshot() or b"")

    def begin(self) -> None:
        """Nothing is to be made ready."""

    def append(self, after: int, records: Sequence[bytes]) -> int:
        """Append records, unless a fault was asked for; see Journal.

        Raises:
            JournalError: `fail_with` is set, or it was closed.
            OutcomeUnknown: `lose_answer` is set.
            PositionTaken: `after` is not the last position.
            Crash: `crash_after` appends have passed.

        """
        if self.closed or self.fail_with is not None:
            raise JournalError(self.fail_with or "the journal was closed")
        if after != self.position:
            raise PositionTaken(after, self.position)
        lost, self.lose_answer = self.lose_answer, None
        if lost is not False:
            self._records += records
            self.commits += 1
        if lost is not None:
            raise OutcomeUnknown("the answer was lost")
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                if self.tear and records:
                    self._records.pop()
                raise Crash
        self.bytes_written += sum(map(len, records))
        self.acknowledged = self.position
        return self.position

    def snapshot(self) -> bytes | None:
        """The newest snapshot."""
        return self._snapshot[1] if self._snapshot else None

    def read(self, after: int, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind a position.

        Raises:
            JournalDamaged: one is missing that was acknowledged as the last.

        """
        last = self.position if up_to is None else min(up_to, self.position)
        for index in range(max(after - self._dropped, 0), last - self._dropped):
            yield Entry(self._dropped + index + 1, self._records[index])
        if up_to is None and self.position < self.acknowledged:
            raise JournalDamaged(
                f"the journal ends with record {self.position}, but record {self.acknowledged} was"
                " acknowledged"
            )

    def lose_end(self, count: int) -> None:
        """Lose the last records, as a file does that is cut where an append ends."""
        del self._records[len(self._records) - count :]

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Put a snapshot in place.

        Raises:
            JournalError: `fail_with` is set.

        """
        if self.fail_with is not None:
            raise JournalError(self.fail_with)
        assert position <= self.position, "a snapshot of what is still to come"
        if position >= self.snapshot_position:
            self._snapshot = (position, data)

    def snapshots(self, request_ids_max: int) -> "_InProcess":
        """Makes snapshots in this process."""
        return _InProcess(self, request_ids_max)

    def compact(self, up_to: int) -> None:
        """Drop what the snapshot stands for, up to a position."""
        count = min(up_to, self.snapshot_position) - self._dropped
        if count > 0:
            del self._records[:count]
            self._dropped += count

    def close(self) -> None:
        """Refuse further appends."""
        self.closed = True

    def restarted(self) -> "MemoryJournal":
        """What the next process finds: everything written, no fault."""
        found = MemoryJournal(self._server_epoch, synced=self.synced)
        found._records = list(self._records)
        found._dropped = self._dropped
        found.acknowledged = self.acknowledged
        found._snapshot = self._snapshot
        return found


class _InProcess:
    """Makes snapshots while its caller waits; see `Snapshots`."""

    def __init__(self, journal: MemoryJournal, request_ids_max: int) -> None:
        self._journal = journal
        self._request_ids_max = request_ids_max
        self._made: Made | None = None

    def prepare(self) -> None:
        """Nothing is to be made ready."""

    def begin(self) -> bool:
        """Make one; see `Snapshots`."""
        journal, started = self._journal, time.monotonic()
        position = journal.position
        problem: dict[str, object] = {}
        try:
            compact(journal, position, self._request_ids_max)
        except (JournalDamaged, JournalError) as error:
            problem = {"problem": str(error)}
        self._made = Made(position, time.monotonic() - started, problem)
        return True

    def made(self) -> Made | None:
        """What became of it."""
        made, self._made = self._made, None
        return made

    def stop(self) -> None:
        """Nothing is on its way."""
