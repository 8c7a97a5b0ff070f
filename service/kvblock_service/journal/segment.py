"""What a segment is: one file of a journal's directory that records are appended to.

Rules:
- A segment is written to by one process, and never by a second one: a process begins with a new
  segment. Readers may look at it at any moment, and change nothing.
- It begins with a head, which is written with its first append, as a part of that: until then, it
  is empty. One without a head was written before there were any.
- Its records are in order and without a gap. Those from a position on are void when a later segment
  begins at that position: they belong to a write that failed, or to a tail that was cut.
- An append is all or nothing. What is left of one at the very end, because its process or its host
  died, is a torn tail; anything else that cannot be read is damage. `reader` says which is which.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from kvblock_service.journal.interface import Entry


class Tail(NamedTuple):
    """Bytes at the end of a segment that belong to no whole append.

    `cut_short`: they are the beginning of one, as far as can be told, and not one that has its full
    length and was changed later.
    """

    path: Path
    size: int
    cut_short: bool = True


class Head(NamedTuple):
    """What a segment is: `number` is that in its name, `first` the position of its first record.

    `chain`: the chain checksum before that record, which is that at the end of its predecessor.
    """

    server_epoch: int
    number: int
    first: int
    chain: bytes


class Begun(NamedTuple):
    """How a segment begins: `first` is the position of its first record; None: it has none."""

    first: int | None = None
    head: Head | None = None


class Segment(Protocol):
    """A segment that is written to.

    `filled` is about how many bytes it takes on the disk; `last` is the position of its last
    record, 0 before the first.
    """

    path: Path
    filled: int
    last: int

    def follow(self, chain: bytes) -> None:
        """Take the chain checksum before the first record; comes before the first append."""

    def append(self, first: int, records: Sequence[bytes]) -> None:
        """Append records, the first of which gets that position.

        Raises:
            JournalError: nothing was kept; the segment is to be sealed.

        """

    def seal(self) -> None:
        """Bring the file into the form in which it is kept, and close it.

        Raises:
            JournalError: it is closed, but has its old form, which is readable all the same.

        """

    def abandon(self) -> None:
        """Close it, whatever it is in."""


class Format(Protocol):
    """A kind of segment; `suffix` ends the names of its files."""

    suffix: str

    def make(self, path: Path, size: int, server_epoch: int, *, synced: bool) -> Segment:
        """Make an empty segment that will have about `size` bytes; `synced`: it survives the host.

        Its number is the one in `path`. A size of 0: it takes no space before it is written to.

        Raises:
            JournalError: it cannot be made; what there is of it is to be removed.

        """

    def begun(self, path: Path) -> Begun:
        """How a segment begins.

        Raises:
            JournalDamaged: it cannot be read.
            FileNotFoundError: it is not there.

        """

    def rows(self, path: Path, after: int, tails: list[Tail]) -> Iterator[Entry]:
        """The records of a segment behind a position; adds to `tails` what is torn.

        Raises:
            JournalDamaged: it cannot be read.
            FileNotFoundError: it is not there.

        """

    def shrink(self, path: Path, torn: int) -> None:
        """Bring a segment whose process died into the form in which it is kept.

        `torn` is how many bytes at its end were found to be a torn tail.

        Raises:
            JournalError: it keeps its old form.

        """

    def remove(self, path: Path) -> None:
        """Remove a segment, or what there is of it.

        Raises:
            OSError: that is not permitted.

        """
