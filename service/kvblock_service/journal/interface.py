"""The interface of every journal, and the errors it raises.

Rules:
- Records are numbered from 1 without a gap; the number is their position.
- `write` is all or nothing: when it returns, its records survive; when it raises, the position is
  what it was and the next successful write takes the same positions. Only a process that dies
  between the two may find the failed write kept: nobody was told what became of it. What a process
  that dies in a write leaves of it is no record: `replay` passes it over.
- A snapshot at position N stands for all records up to N; `replay` begins behind it.
- A journal has one owner, and is called from one thread, unless a method says otherwise.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class JournalError(Exception):
    """The journal cannot keep anything now; the text says why, for people. It may recover."""


class JournalDamaged(Exception):
    """What was kept cannot be read; the text names the position and the file."""


class CodecError(ValueError):
    """Bytes that are no record, or no snapshot; the text says what is wrong with them."""


class Entry(NamedTuple):
    """A record as bytes, and its position."""

    position: int
    record: bytes


class Source(Protocol):
    """What was kept, for who reads it."""

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

    def replay(self, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind the newest snapshot, in order; `up_to`: the last one, None: all.

        Raises:
            JournalDamaged: a record is missing or cannot be read; without `up_to` also when one is
                missing that was acknowledged as the last.

        """


class Journal(Source, Protocol):
    """A durable log of records over a snapshot.

    The position is known from the start, or else after the first `replay` or `write`.
    """

    def write(self, records: Sequence[bytes]) -> None:
        """Append records in order, as one commit.

        Raises:
            JournalError: nothing was kept.

        """

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Keep the state after the record at `position`; `truncate` may follow.

        Raises:
            JournalError: it could not be kept; the journal goes on with what it had.

        """

    def truncate(self, up_to: int) -> None:
        """Drop records up to a position, as far as a snapshot stands for them, and old snapshots.

        What cannot be dropped at once goes later; the position of no record changes.
        """

    def close(self) -> None:
        """Let go of everything; what was written stays."""
