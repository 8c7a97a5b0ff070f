"""The segments and snapshots of a directory as one journal, for reading.

Rules:
- Records are read in order and without a gap: what a later segment makes void is passed over, what
  is missing is damage.
- Nothing is trusted for its name or its place: each file says what it is, and `chain_check` has it
  compared with what precedes it. The log has to reach what `end` says was acknowledged.
- Behind that, an append may be torn at the very end of all, and that is passed over. A process that
  died leaves the beginning of it, because the system writes a file from its beginning on. Only a
  host that died may leave any part of it and anything in place of the rest. So unless the host died
  an append that has its full length and a wrong checksum is damage: it was acknowledged, maybe, and
  changed later.
- A record in an append that is sound was written as it is. If it cannot be understood, that is for
  `recovery` to tell.
- Nothing in the directory is changed, and a server may write to it meanwhile.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal import end_file, files, segment
from kvblock_service.journal.chain_check import ChainCheck
from kvblock_service.journal.end_file import End
from kvblock_service.journal.interface import Entry, JournalDamaged
from kvblock_service.journal.segment import Begun, Tail
from kvblock_service.journal.snapshot_file import SnapshotFile, read_snapshot, write_snapshot


class _Range(NamedTuple):
    """A segment, and the position from which on the next ones make it void."""

    path: Path
    begun: Begun
    end: int | None


class FileReader:
    """The records and snapshots in a directory, read without changing anything.

    `host_died`: the host went down since it was written, and each append was synced. `is_marked`:
    there has to be an `end`. `synced`: snapshots survive the host. `tails`: after everything was
    read, what was torn at the end of a segment. Works beside a server that writes: then it sees
    what was there when it came by.
    """

    def __init__(
        self,
        directory: Path,
        server_epoch: int,
        *,
        host_died: bool = False,
        is_marked: bool = False,
        synced: bool = False,
    ) -> None:
        self.directory = directory
        self._host_died = host_died
        self._is_marked = is_marked
        self._synced = synced
        self.tails: list[Tail] = []
        self.server_epoch = server_epoch
        self._snapshots = files.snapshots(directory)
        self._base: End | None = None
        self._reached: End | None = None

    @property
    def position(self) -> int:
        """The position of the last record that was read."""
        reached = self._reached.position if self._reached else 0
        return max(reached, self.snapshot_position)

    @property
    def snapshot_position(self) -> int:
        """The position of the newest snapshot."""
        return self._snapshots[-1][0] if self._snapshots else 0

    def snapshot(self) -> bytes | None:
        """The newest snapshot; see `Source`."""
        if not self._snapshots:
            return None
        position, path = self._snapshots[-1]
        found = read_snapshot(path, self.server_epoch, position)
        self._base = End(position, found.chain)
        return found.data

    def read(self, after: int, up_to: int | None = None) -> Iterator[Entry]:
        """The records behind a position; see `Source`."""
        self.tails = []
        files.refuse_other_formats(self.directory)
        # Before the segments: a server that writes to them meanwhile is only ever ahead of this.
        end = end_file.read_end(self.directory, self.server_epoch)
        if end is None and self._is_marked:
            raise JournalDamaged(
                f"{self.directory / end_file.NAME} is missing, which says where the journal ended"
            )
        if self._base is None or self._base.position != self.snapshot_position:
            self._base = None
            self.snapshot()
        check = ChainCheck(self.directory, self.server_epoch, self._base, end)
        for one in self._ranges():
            for entry in self._rows(one, check):
                if up_to is not None and entry.position > up_to:
                    return
                check.take(entry)
                self._reached = check.reached
                if entry.position > after:
                    yield entry
        if up_to is None:
            check.finish()
        elif check.reached.position < up_to:
            torn = "".join(
                f"; {tail.path} has {tail.size} bytes that are none" for tail in self.tails
            )
            raise JournalDamaged(
                f"the records end at {check.reached.position}, not at {up_to}{torn}"
            )
        self._reached = check.reached

    def put_snapshot(self, position: int, data: bytes) -> None:
        """Put a snapshot in place, reading up to there unless that was done; see `Source`."""
        if self._reached is None or self._reached.position != position:
            for _ in self.read(position, position):
                pass
        reached = self._reached
        assert reached is not None
        found = SnapshotFile(position, reached.chain, data)
        write_snapshot(self.directory, self.server_epoch, found, synced=self._synced)
        self.look_for_snapshots()

    def look_for_snapshots(self) -> None:
        """Take notice of snapshots that came or went."""
        self._snapshots = files.snapshots(self.directory)

    def find_end(self) -> End:
        """The position of the last record, for which everything is read unless it was before."""
        if self._reached is None:
            for _ in self.read(self.snapshot_position):
                pass
        assert self._reached is not None
        return self._reached

    def segments(self) -> list[tuple[Path, int]]:
        """Every segment with the position of its last record that counts."""
        last = self.find_end().position
        return [(path, last if end is None else end - 1) for path, _, end in self._ranges()]

    def _rows(self, found: _Range, check: ChainCheck) -> Iterator[Entry]:
        """The records of a segment that count."""
        path, begun, end = found
        check.begin(path, begun)
        before = len(self.tails)
        for entry in segment.entries(path, check.reached.position, self.tails):
            if end is not None and entry.position >= end:
                break
            yield entry
        # Where a later segment begins, it says what there was before it.
        for tail in self.tails[before:]:
            if end is None and not self._host_died and not tail.cut_short:
                raise JournalDamaged(
                    f"{path} is damaged in its last {tail.size} bytes, from record"
                    f" {check.reached.position + 1} on: they are not what a process leaves that"
                    " dies while it writes"
                )

    def _ranges(self) -> list[_Range]:
        ranges: list[_Range] = []
        end: int | None = None
        for _, path in reversed(files.segments(self.directory)):
            begun = segment.begun(path)
            ranges.append(_Range(path, begun, end))
            if begun.first is not None:
                end = begun.first if end is None else min(begun.first, end)
        return ranges[::-1]
