"""A journal in the files of a directory, one segment after the other.

Rules:
- When a segment is full the next one, which was made ready before, takes its place; the old one is
  closed by the maintenance, a thread of its own.
- A segment in which a write failed is not written to again: the next one begins at the position
  that the failed write would have had, which makes void whatever is left of it.
- Truncation removes whole files: it needs no space, and delays no append.
- A write is acknowledged once `end` says so. When that fails the write has failed, as any other.

Threads:
- `append` is called from one thread at a time, which need not be the owner's: one that waits for a
  disk has a thread of its own. All else is for the owner's thread, which never waits for an append
  until it closes the journal.
- `_segment`, `_position`, `_chain` and `_end` belong to whoever holds `_writing`: a write for as
  long as it takes, so that no segment is changed or sealed under it. Others may read `position`: it
  moves when a write has succeeded.
- `rotate` does not wait for `_writing`: when a write is on its way, that one rotates at its end.
  `_asked` is set by the owner's thread alone, and what is in it by whoever holds `_writing`.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvblock_service.journal import chain, files
from kvblock_service.journal.end_file import EndFile
from kvblock_service.journal.interface import Entry, JournalError, PositionTaken
from kvblock_service.journal.maintenance import Maintenance
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import Segment, Tail
from kvblock_service.journal.snapshot_process import SnapshotProcess

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment of this size is followed by the next one."""


class FileJournal:
    """The one writer of a directory.

    `durable_on`: `process`, what was written outlives the process; `host`, the host too.
    `host_died` and `is_marked`: see FileReader. The directory is read first: `recover` leaves the
    journal at its last position. `trouble`: what the maintenance could not do, the newest last;
    whoever takes a text out logs it. `bug` is what ended the maintenance, if anything has.
    `bytes_written` is the length of all records since the start.
    """

    def __init__(
        self,
        directory: Path,
        server_epoch: int,
        durable_on: str = "process",
        segment_bytes: int = SEGMENT_BYTES,
        *,
        host_died: bool = False,
        is_marked: bool = False,
    ) -> None:
        self.directory = directory
        self.server_epoch = server_epoch
        self.synced = durable_on == "host"
        self._reader = FileReader(
            directory,
            server_epoch,
            host_died=host_died,
            is_marked=is_marked,
            synced=self.synced,
        )
        self._segment_bytes = segment_bytes
        self._maintenance = Maintenance(directory, server_epoch, synced=self.synced)
        self.trouble = self._maintenance.trouble
        self._segment: Segment | None = None
        self._position: int | None = None
        self._chain = b""
        self._end: EndFile | None = None
        self._closed = False
        self._writing = threading.Lock()
        self._asked: _Rotation | None = None
        self._target: int | None = None
        self.bytes_written = 0

    @property
    def position(self) -> int:
        """The position of the last record; everything is read for it unless it was before."""
        return self._reader.find_end().position if self._position is None else self._position

    @property
    def snapshot_position(self) -> int:
        """The position of the newest snapshot."""
        return self._reader.snapshot_position

    @property
    def sealed_position(self) -> int:
        """The last position that is in closed files."""
        return self._maintenance.sealed_position

    @property
    def space_taken(self) -> int:
        """Bytes that its files take on their device; any thread may ask."""
        return files.space_taken(self.directory)

    @property
    def bug(self) -> Exception | None:
        """What the maintenance was not made for, and has ended of."""
        return self._maintenance.bug

    @property
    def tails(self) -> list[Tail]:
        """What was torn at the end of a segment, after everything was read."""
        return self._reader.tails

    def _mark(self) -> None:
        """Have an `end` that says what was found."""
        if self._closed:
            raise JournalError(f"the journal in {self.directory} was closed")
        if self._end is None:
            found = self._reader.find_end()
            self._position, self._chain = found
            files.remove_partial(self.directory)
            self._end = EndFile(self.directory, self.server_epoch, found, synced=self.synced)
            self._maintenance.found(self._reader.segments(), self.tails)

    def begin(self) -> None:
        """Make the first segment to write to; see `Journal`."""
        self._mark()
        if self._segment is None:
            segment = self._maintenance.next_segment(wait=True)
            assert segment is not None
            self._use(segment)

    def cut_tails(self) -> None:
        """Cut what was torn in the files themselves, and wait for it; may raise JournalError."""
        self._mark()
        if self.tails:
            self.settle()

    def append(self, after: int, records: Sequence[bytes]) -> int:
        """Append records as one frame; see `Journal`."""
        with self._writing:
            if self._segment is None:
                self.begin()
            segment, end = self._segment, self._end
            assert segment is not None
            assert end is not None
            if after != self._position:
                raise PositionTaken(after, self.position)
            if not records:
                return after
            try:
                segment.append(after + 1, records)
                reached = chain.followed(self._chain, records)
                end.move(segment.last, reached)
            except JournalError:
                # What was appended and not acknowledged is void.
                segment.last = min(segment.last, after)
                self._segment = None
                self._maintenance.seal(segment)
                raise
            self._position, self._chain = segment.last, reached
            for record in records:
                self.bytes_written += len(record)
            asked = self._asked
            if asked is not None and asked.at is None:
                self._rotate_as_asked(asked)
            elif segment.filled > self._segment_bytes:
                self._rotated()
            return self._position

    def rotate(self) -> int | None:
        """Have the next segment begin; answers the last position before it, once it has begun.

        None: no segment is ready yet, or a write is on its way. It comes with the end of a write
        then, and the next call answers it. `sealed_position` gets there as soon as what was
        written up to that position is closed.
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
        following = self._maintenance.next_segment(wait=False)
        if following is None:
            return False
        if self._segment is not None:
            self._maintenance.seal(self._segment)
        self._use(following)
        return True

    def _use(self, segment: Segment) -> None:
        segment.chain = self._chain
        self._segment = segment

    def snapshot(self) -> bytes | None:
        """The newest snapshot; see `Source`."""
        return self._reader.snapshot()

    def read(self, after: int, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind a position; see `Source`."""
        # The maintenance may be removing what would be read.
        self.settle()
        return self._reader.read(after, up_to)

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Put a snapshot in place, reading up to there unless that was done; see `Source`."""
        reader = FileReader(self.directory, self.server_epoch, synced=self.synced)
        reader.put_snapshot(position, data)
        self._reader.look_for_snapshots()

    def snapshots(self, request_ids_max: int) -> SnapshotProcess:
        """A process beside this one that makes snapshots."""
        durability = "host" if self.synced else "process"
        return SnapshotProcess(
            self._frozen, self.directory, self.server_epoch, None, request_ids_max, durability
        )

    def _frozen(self) -> int | None:
        """A position up to which all is in closed files; None: not yet."""
        if self._target is None:
            self._target = self.rotate()
        elif self.sealed_position >= self._target:
            position, self._target = self._target, None
            return position
        return None

    def compact(self, up_to: int) -> None:
        """Have snapshots and whole segments removed that the newest snapshot covers."""
        self._reader.look_for_snapshots()
        self._maintenance.drop(min(up_to, self.snapshot_position))

    def settle(self) -> None:
        """Wait until the maintenance has done all that it was asked for."""
        self._maintenance.settle()

    def close(self) -> None:
        """Close the segment once a write that is on its way has ended; nothing goes on then."""
        with self._writing:
            self._closed = True
            if self._segment is not None:
                self._maintenance.seal(self._segment)
                self._segment = None
            if self._end is not None:
                self._end.close()
        self._maintenance.close()


class _Rotation:
    """A rotation that was asked for; `at` is the last position before it, once it has come."""

    def __init__(self) -> None:
        self.at: int | None = None
