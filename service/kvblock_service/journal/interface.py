"""The one interface of every journal, and the errors it raises.

Rules:
- Records are numbered from 1 without a gap; the number is their position.
- An append says after which position it is to follow, so a writer that is not the only one writes
  nothing, and gets PositionTaken.
- An append is all or nothing: it is made (it returns), not made (JournalError), or its outcome is
  unknown (OutcomeUnknown): neither made nor failed. Only a repeat after the same position settles
  that: it is made now, or PositionTaken says that something is there, which `read` shows.
- A process that dies in an append may find it made: it was not acknowledged. What it
  leaves of a part of one is no record: `read` passes it over.
- A snapshot at position N stands for all records up to N.
- A journal has one owner, and is called from one thread, unless a method says otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class JournalError(Exception):
    """The journal cannot write anything now; the text says why, for people. It may recover."""


class OutcomeUnknown(Exception):
    """Whether an append was made is not known; the text says why, for people."""


class PositionTaken(Exception):
    """An append does not follow the last record: nothing was written."""

    def __init__(self, after: int, last: int) -> None:
        super().__init__(f"records were to follow record {after}, but the last one is {last}")


class JournalDamaged(Exception):
    """What was written cannot be read; the text names the position and the file."""


class CodecError(ValueError):
    """Bytes that are no record, or no snapshot; the text says what is wrong with them."""


class Entry(NamedTuple):
    """A record as bytes, and its position."""

    position: int
    record: bytes


class Made(NamedTuple):
    """What became of a snapshot; `problem` is what to log when it is not there, and empty else."""

    position: int
    seconds: float
    problem: dict[str, object]


class LogEvent(NamedTuple):
    """What the journal has to say to an operator; `level` is `info` or `warning`."""

    level: str
    event: str
    fields: dict[str, object]


class Source(Protocol):
    """A journal for its readers, who may leave a snapshot of what they have read."""

    @property
    def server_epoch(self) -> int:
        """The epoch under which this journal's state began: milliseconds since 1970."""

    @property
    def position(self) -> int:
        """The position of the last record; 0 before the first."""

    @property
    def snapshot_position(self) -> int:
        """The position that the newest snapshot stands for; 0 when there is none."""

    def snapshot(self) -> bytes | None:
        """The newest snapshot, or None.

        Raises:
            JournalDamaged: there is one, but it cannot be read.

        """

    def read(self, after: int, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind a position, in order; `up_to`: the last one, None: all.

        Records in front of the newest snapshot may be gone.

        Raises:
            JournalDamaged: a record is missing or cannot be read; without `up_to` also when one is
                missing that was acknowledged as the last.

        """

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Put the state after the record at `position` in place of an older one.

        Raises:
            JournalError: it could not be written; the journal goes on with what it had.
            JournalDamaged: the records up to there cannot be read.

        """


class Snapshots(Protocol):
    """Makes snapshots of one journal, one at a time, while it is appended to."""

    def prepare(self) -> None:
        """Make ready, before `begin`, what takes long to begin.

        Raises:
            OSError: that cannot be done now.

        """

    def begin(self) -> bool:
        """Begin one of everything up to now; False: that is not possible yet, ask again."""

    def made(self) -> Made | None:
        """What became of the one that was begun; None: it is not finished."""

    def stop(self) -> None:
        """End one that is on its way; what was made stays."""


class Journal(Source, Protocol):
    """A durable log of records over a snapshot.

    `synced`: an append waits for a disk or a network, which takes milliseconds; it is to be made in
    a thread of its own then, one at a time. `trouble`: what could not be done beside the appends,
    the newest last; whoever takes a text out logs it. `bug`: what has ended that work for good.
    `bytes_written`: the length of all records that were appended since the start.
    """

    synced: bool
    bytes_written: int

    @property
    def trouble(self) -> list[str]:
        """What went wrong and is tried again."""

    @property
    def bug(self) -> Exception | None:
        """An unexpected error: nothing may be acknowledged any more."""

    @property
    def space_taken(self) -> int:
        """Bytes that it takes where it is; any thread may ask."""

    def begin(self) -> None:
        """Make ready for appends.

        Raises:
            JournalError: nothing can be written now.

        """

    def append(self, after: int, records: Sequence[bytes]) -> int:
        """Append records behind the position `after`, as one; answers the position of the last.

        Raises:
            JournalError: nothing was written.
            OutcomeUnknown: they may have been written, or may be later.
            PositionTaken: `after` is not the last position; nothing was written.

        """

    def snapshots(self, request_ids_max: int) -> Snapshots:
        """What makes snapshots of it; `request_ids_max` is that of the pools' bounds."""

    def compact(self, up_to: int) -> None:
        """Drop records up to a position, as far as a snapshot stands for them, and old snapshots.

        What cannot be dropped at once goes later; the position of no record changes.

        Raises:
            JournalError: it cannot be said now what may go.

        """

    def close(self) -> None:
        """Let go of everything; what was appended stays."""
