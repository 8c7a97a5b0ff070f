"""A journal in memory, for tests and simulations: it fails, crashes and tears on demand.

Rules:
- It keeps the interface's promises; `restarted` gives what the next process would find.
- Which position was acknowledged last is kept apart from the records, as in `end_file`.
- A fault is asked for beforehand, and happens once.
"""

from collections.abc import Iterator, Sequence

from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError


class Crash(BaseException):
    """The process is gone at this point, as far as a test is concerned."""


class MemoryJournal:
    """A journal that lives as long as its object.

    `acknowledged`: the last position of a write that has returned. Faults, asked for by attribute:
    `fail_with`: a text; every write raises JournalError with it until it is None again.
    `crash_after`: that many writes from now, the process dies right after keeping one (0: after the
    next). `tear`: it dies in the middle of that write, whose last record is torn, and therefore
    none.
    """

    def __init__(self, server_epoch: int = 1) -> None:
        self._server_epoch = server_epoch
        self._records: list[bytes] = []
        self._dropped = 0
        self.acknowledged = 0
        self._snapshot: tuple[int, bytes] | None = None
        self.closed = False
        self.commits = 0
        self.fail_with: str | None = None
        self.crash_after: int | None = None
        self.tear = False

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

    def write(self, records: Sequence[bytes]) -> None:
        """Append records, unless a fault was asked for.

        Raises:
            JournalError: `fail_with` is set.
            Crash: `crash_after` writes have passed.

        """
        assert not self.closed, "written to after it was closed"
        if self.fail_with is not None:
            raise JournalError(self.fail_with)
        self._records += records
        self.commits += 1
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                if self.tear and records:
                    self._records.pop()
                raise Crash
        self.acknowledged = self.position

    def snapshot(self) -> bytes | None:
        """The newest snapshot."""
        return self._snapshot[1] if self._snapshot else None

    def replay(self, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind the snapshot.

        Raises:
            JournalDamaged: one is missing that was acknowledged as the last.

        """
        after = self.snapshot_position
        last = self.position if up_to is None else min(up_to, self.position)
        for index in range(after - self._dropped, last - self._dropped):
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
        """Keep a snapshot.

        Raises:
            JournalError: `fail_with` is set.

        """
        if self.fail_with is not None:
            raise JournalError(self.fail_with)
        assert position <= self.position, "a snapshot of what is still to come"
        if position >= self.snapshot_position:
            self._snapshot = (position, data)

    def truncate(self, up_to: int) -> None:
        """Drop what the snapshot stands for, up to a position."""
        count = min(up_to, self.snapshot_position) - self._dropped
        if count > 0:
            del self._records[:count]
            self._dropped += count

    def close(self) -> None:
        """Refuse further writes."""
        self.closed = True

    def restarted(self) -> "MemoryJournal":
        """What the next process finds: everything kept, no fault."""
        found = MemoryJournal(self._server_epoch)
        found._records = list(self._records)
        found._dropped = self._dropped
        found.acknowledged = self.acknowledged
        found._snapshot = self._snapshot
        return found
