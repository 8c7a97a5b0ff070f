"""The segments and snapshots of a directory as one journal, for reading.

Rules:
- Records are read in order and without a gap: what a later segment makes void is passed over, what
  is missing is damage.
- Nothing in the directory is changed, and a server may write to it meanwhile.
"""

from collections.abc import Iterator
from pathlib import Path

from kvblock_service.journal import files
from kvblock_service.journal.formats import format_of
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.segment import Tail


class FileReader:
    """The records and snapshots in a directory, read without changing anything.

    `tails`: after a replay, what was torn at the end of a segment. Works beside a server that
    writes: then it sees what was there when it came by.
    """

    def __init__(self, directory: Path, server_epoch: int) -> None:
        self.directory = directory
        self.tails: list[Tail] = []
        self._server_epoch = server_epoch
        self._snapshots = files.snapshots(directory)
        self._cut = 0
        self._position = 0

    @property
    def server_epoch(self) -> int:
        """The epoch of the directory."""
        return self._server_epoch

    @property
    def position(self) -> int:
        """The position of the last record that a replay came to."""
        return max(self._position, self.snapshot_position)

    @property
    def snapshot_position(self) -> int:
        """The position of the newest snapshot."""
        return self._snapshots[-1][0] if self._snapshots else 0

    def snapshot(self) -> bytes | None:
        """The newest snapshot.

        Raises:
            JournalDamaged: it cannot be read.

        """
        if not self._snapshots:
            return None
        path = self._snapshots[-1][1]
        try:
            return path.read_bytes()
        except OSError as error:
            raise JournalDamaged(f"{path} cannot be read: {error.strerror}") from error

    def replay(self) -> Iterator[Entry]:
        """The records behind the newest snapshot.

        Raises:
            JournalDamaged: one is missing, or cannot be read.

        """
        self.tails = []
        expected = self.snapshot_position + 1
        for path, end in self._ranges():
            for entry in format_of(path).rows(path, expected - 1, self.tails):
                if end is not None and entry.position >= end:
                    break
                if entry.position != expected:
                    raise JournalDamaged(
                        f"records {expected} to {entry.position - 1} are missing before {path}"
                    )
                self._position = expected
                expected += 1
                yield entry

    def cut(self, position: int) -> None:
        """Forget the last record: the next segment will begin at its position."""
        assert position == self.position, "only the last record can be cut"
        self._position = position - 1

    def put_snapshot(self, position: int, data: bytes, *, synced: bool = False) -> None:
        """Keep a snapshot; `synced`: it survives the host.

        Raises:
            JournalError: it could not be written.

        """
        path = files.snapshot_path(self.directory, position)
        try:
            files.write_whole(path, data, synced=synced)
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}") from error
        self.look_for_snapshots()

    def look_for_snapshots(self) -> None:
        """Take notice of snapshots that came or went."""
        self._snapshots = files.snapshots(self.directory)

    def find_end(self) -> int:
        """The position of the last record, for which everything is read unless it was before."""
        if not self._position:
            for _ in self.replay():
                pass
        return self.position

    def segments(self) -> list[tuple[Path, int]]:
        """Every segment with the position of its last record that counts."""
        last = self.find_end()
        return [(path, last if end is None else end - 1) for path, end in self._ranges()]

    def _ranges(self) -> list[tuple[Path, int | None]]:
        """Each segment with the position from which on the next ones make it void."""
        ranges: list[tuple[Path, int | None]] = []
        end: int | None = None
        for _, path in reversed(files.segments(self.directory)):
            first = format_of(path).first_position(path)
            ranges.append((path, end))
            if first is not None:
                end = first if end is None else min(first, end)
        return ranges[::-1]
