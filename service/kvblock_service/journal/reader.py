"""The segments and snapshots of a directory as one journal, for reading.

Rules:
- Records are read in order and without a gap: what a later segment makes void is passed over, what
  is missing is damage.
- At the very end of all an append may be torn, and that is passed over: it was not acknowledged. A
  process that died leaves the beginning of it, because the system writes a file from its beginning
  on. Only a host that died may leave any part of it and anything in place of the rest, and what it
  leaves is read again only if each append was synced: otherwise the pools begin empty. So where
  appends were not synced, an append that has its full length and a wrong checksum is damage: it was
  acknowledged, maybe, and changed later.
- A record in an append that is sound was written as it is. If it cannot be understood, that is for
  `recovery` to tell.
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

    `synced`: each append was; see above. `tails`: after a replay, what was torn at the end of a
    segment. Works beside a server that writes: then it sees what was there when it came by.
    """

    def __init__(self, directory: Path, server_epoch: int, *, synced: bool = False) -> None:
        self.directory = directory
        self._synced = synced
        self.tails: list[Tail] = []
        self._server_epoch = server_epoch
        self._snapshots = files.snapshots(directory)
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
            before = len(self.tails)
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
            # Where a later segment begins, it says what there was before it.
            if end is None and not self._synced:
                self._refuse_changed(self.tails[before:], expected)

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

    def _refuse_changed(self, tails: list[Tail], position: int) -> None:
        for tail in tails:
            if not tail.cut_short:
                raise JournalDamaged(
                    f"{tail.path} is damaged in its last {tail.size} bytes, from record {position}"
                    " on: they are not what a process leaves that dies while it writes. Restore the"
                    f" file, or move {self.directory.parent} away and begin with empty pools"
                )

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
