"""A journal in the files of a directory, one segment after the other.

Rules:
- When a segment is full the next one, which was made ready before, takes its place; the old one is
  sealed by the keeper, a thread of its own.
- A segment in which a write failed is not written to again: the next one begins at the position
  that the failed write would have had, which makes void whatever is left of it.
- Truncation removes whole files: it needs no space, and holds nobody up.
- The format of new segments may differ from that of older ones: each tells its own.

Threads:
- `write` is called from one thread at a time, which need not be the owner's: a write that waits for
  a disk has one of its own. All else is for the owner's thread, which never waits for a write until
  it closes the journal.
- `_segment` and `_position` belong to whoever holds `_writing`: a write for as long as it takes, so
  that no segment is changed or sealed under it. Others may read `position`: it moves when a write
  has succeeded.
- `rotate` does not wait for `_writing`: when a write is on its way, that one rotates at its end.
  `_asked` is set by the owner's thread alone, and what is in it by whoever holds `_writing`.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvblock_service.journal import files
from kvblock_service.journal.formats import DEFAULT, FORMATS
from kvblock_service.journal.interface import Entry, JournalError
from kvblock_service.journal.keeper import Keeper
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import Segment, Tail

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment of this size is followed by the next one."""


class FileJournal:
    """The one writer of a directory.

    `durable_on`: `process`, what was written outlives the process; `host`, the host too. `kind`
    names the format of new segments. `was_synced`: what is there was written under `host`; None: it
    was if `durable_on` says so. The directory is read first: `recover` leaves the journal at
    its last position. `trouble`: what the keeper could not do, the newest last; whoever takes a
    text out logs it. `bug` is what ended the keeper, if anything has: nothing is kept in order any
    more. `bytes_written` is the length of all records since the start.
    """

    def __init__(
        self,
        directory: Path,
        server_epoch: int,
        durable_on: str = "process",
        kind: str = DEFAULT,
        segment_bytes: int = SEGMENT_BYTES,
        *,
        was_synced: bool | None = None,
    ) -> None:
        self.directory = directory
        self.synced = durable_on == "host"
        read_as_synced = self.synced if was_synced is None else was_synced
        self._reader = FileReader(directory, server_epoch, synced=read_as_synced)
        self._segment_bytes = segment_bytes
        self._keeper = Keeper(directory, FORMATS[kind], segment_bytes, synced=self.synced)
        self._segment: Segment | None = None
        self._position: int | None = None
        self._failing = False
        self._closed = False
        self._writing = threading.Lock()
        self._asked: _Rotation | None = None
        self.bytes_written = 0

    @property
    def server_epoch(self) -> int:
        """The epoch of the directory."""
        return self._reader.server_epoch

    @property
    def position(self) -> int:
        """The position of the last record."""
        return self._reader.position if self._position is None else self._position

    @property
    def snapshot_position(self) -> int:
        """The position of the newest snapshot."""
        return self._reader.snapshot_position

    @property
    def sealed_position(self) -> int:
        """The last position that is in files which nobody writes to any more."""
        return self._keeper.sealed_position

    @property
    def trouble(self) -> list[str]:
        """What went wrong in the background."""
        return self._keeper.trouble

    @property
    def space_taken(self) -> int:
        """Bytes that its files take on their device; any thread may ask."""
        return files.space_taken(self.directory)

    @property
    def bug(self) -> Exception | None:
        """What the keeper was not made for, and has ended of."""
        return self._keeper.bug

    @property
    def tails(self) -> list[Tail]:
        """What was torn at the end of a segment, after a replay."""
        return self._reader.tails

    def begin(self) -> None:
        """Make the first segment to write to.

        Raises:
            JournalError: the directory cannot be written to.

        """
        if self._closed:
            raise JournalError(f"the journal in {self.directory} was closed")
        if self._position is None:
            self._position = self._reader.find_end()
            files.remove_partial(self.directory)
            self._keeper.found(self._reader.segments(), self.tails)
        if self._segment is None:
            # On a full disk the caller tries again and again, and should not wait for zeros.
            self._segment = self._keeper.next_segment(wait=True, reserve=not self._failing)

    def write(self, records: Sequence[bytes]) -> None:
        """Append records as one commit.

        Raises:
            JournalError: nothing was kept.

        """
        if records:
            with self._writing:
                self._write(records)

    def _write(self, records: Sequence[bytes]) -> None:
        segment = self._segment
        if segment is None:
            self.begin()
            segment = self._segment
            assert segment is not None
        assert self._position is not None
        try:
            segment.append(self._position + 1, records)
        except JournalError:
            self._segment = None
            self._failing = True
            self._keeper.seal(segment)
            raise
        self._position = segment.last
        self._failing = False
        self.bytes_written += sum(map(len, records))
        asked = self._asked
        if asked is not None and asked.at is None:
            self._rotate_as_asked(asked)
        elif segment.filled > self._segment_bytes:
            self._rotated()

    def rotate(self) -> int | None:
        """Have the next segment begin; answers the last position before it, once it has begun.

        None: no segment is ready yet, or a write is on its way. It comes with the end of a write
        then, and whoever asks again is told. `sealed_position` gets there as soon as the keeper has
        closed what was written up to that position.
        """
        asked = self._asked
        if asked is None:
            asked = self._asked = _Rotation()
        if self._writing.acquire(blocking=False):
            try:
                self._rotate_as_asked(asked)
            finally:
                self._writing.release()
        if asked.at is not None:
            self._asked = None
        return asked.at

    def _rotate_as_asked(self, asked: "_Rotation") -> None:
        if asked.at is None and self._rotated():
            asked.at = self.position

    def _rotated(self) -> bool:
        """Go on in the next segment, if one is ready."""
        following = self._keeper.next_segment(wait=False)
        if following is None:
            return False
        if self._segment is not None:
            self._keeper.seal(self._segment)
        self._segment = following
        return True

    def snapshot(self) -> bytes | None:
        """The newest snapshot.

        Raises:
            JournalDamaged: it cannot be read.

        """
        return self._reader.snapshot()

    def replay(self) -> Iterator[Entry]:
        """The records behind the newest snapshot.

        Raises:
            JournalDamaged: one is missing, or cannot be read.

        """
        # The keeper may be removing what would be read.
        self.settle()
        return self._reader.replay()

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Keep a snapshot, written by the caller's thread.

        Raises:
            JournalError: it could not be written.

        """
        self._reader.put_snapshot(position, data, synced=self.synced)

    def truncate(self, up_to: int) -> None:
        """Have the keeper remove snapshots and whole segments that the newest snapshot covers."""
        self._reader.look_for_snapshots()
        self._keeper.drop(min(up_to, self.snapshot_position))

    def settle(self) -> None:
        """Wait until the keeper has done all that it was asked for."""
        self._keeper.settle()

    def close(self) -> None:
        """Close the segment, and wait for the keeper; a write that is on its way ends before."""
        with self._writing:
            self._closed = True
            if self._segment is not None:
                self._keeper.seal(self._segment)
                self._segment = None
        self._keeper.close()


class _Rotation:
    """A rotation that was asked for; `at` is the last position before it, once it has come."""

    def __init__(self) -> None:
        self.at: int | None = None
