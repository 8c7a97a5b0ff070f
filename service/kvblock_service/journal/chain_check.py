"""Whether the files of a journal fit together: from the snapshot, over the segments, to the end.

Rules:
- A segment is the one of its name: of this epoch, and with this number. It begins where, and with
  the chain checksum with which, what is before it ended.
- A snapshot and `end` have the chain checksum of their position. What is before all segments is not
  there any more, and cannot be compared.
- Segments without a head are older than those with one. Before the first one was written, nothing
  but the positions of their records can be compared.
"""

from pathlib import Path

from kvblock_service.journal import chain, end_file, files
from kvblock_service.journal.end_file import End
from kvblock_service.journal.interface import Entry, JournalDamaged
from kvblock_service.journal.segment import Begun, Head


class ChainCheck:
    """Follows the records of a directory; `reached` is where it has come to.

    `base`: the position of the snapshot and the chain checksum there, None: there is none; `end`:
    those of the last append that was acknowledged, None: that is unknown.

    Raises:
        JournalDamaged: from every method, when what it is given does not belong here.

    """

    def __init__(
        self, directory: Path, server_epoch: int, base: End | None, end: End | None
    ) -> None:
        self._directory = directory
        self._epoch = server_epoch
        self._base = base or End(0, chain.beginning(server_epoch))
        self._end = end
        self._has_heads = False
        self._version = 1
        self._first: int | None = None
        self.reached = self._base
        self._compare_with_end(self.reached)

    def begin(self, path: Path, begun: Begun) -> None:
        """The next segment."""
        first, head = begun
        if first is None:
            return
        if self._first is not None and first < self._first:
            raise JournalDamaged(
                f"{path} begins with record {first}, before the segment that precedes it, which"
                f" begins with record {self._first}: it is a copy, or has a wrong name"
            )
        self._first = first
        if head is not None:
            self._has_heads = True
            self._version = head.version
            self._compare_with_name(path, head)
            self._continue(path, head)
        elif self._has_heads:
            raise JournalDamaged(
                f"{path} has no head, as segments of an older version, and is behind one that has"
            )

    def take(self, entry: Entry) -> None:
        """The next record."""
        position, record = entry
        expected = self.reached.position + 1
        if position != expected:
            raise JournalDamaged(
                f"records {expected} to {position - 1} are missing in {self._directory}"
            )
        self.reached = End(position, chain.followed(self.reached.chain, (record,), self._version))
        if position == self._base.position and self.reached != self._base:
            raise JournalDamaged(
                f"{files.snapshot_path(self._directory, position)} is not the snapshot of the"
                " records in front of it: one of them was replaced"
            )
        self._compare_with_end(self.reached)

    def finish(self) -> None:
        """Nothing follows: all that was acknowledged has to be there."""
        # Segments in front of a snapshot may be gone, or some of them.
        self.reached = max(self.reached, self._base)
        if self._end is not None and self.reached.position < self._end.position:
            raise JournalDamaged(
                f"the journal in {self._directory} ends with record {self.reached.position}, but"
                f" record {self._end.position} was acknowledged: its newest segments were cut,"
                " emptied, removed or replaced by older ones"
            )

    def _compare_with_name(self, path: Path, head: Head) -> None:
        number = files.segment_number(path)
        if (head.server_epoch, head.number) != (self._epoch, number):
            raise JournalDamaged(
                f"{path} is segment {head.number} of server epoch {head.server_epoch}, and not"
                f" segment {number} of {self._epoch} that its name says: it was renamed or copied"
            )

    def _continue(self, path: Path, head: Head) -> None:
        before = head.first - 1
        for known in (self.reached, self._base):
            if before == known.position and head.chain != known.chain:
                raise JournalDamaged(
                    f"{path} does not follow from what is in front of it: a segment or a snapshot"
                    " was replaced"
                )
        if before > max(self.reached.position, self._base.position):
            raise JournalDamaged(
                f"records {self.reached.position + 1} to {before} are missing before {path}"
            )
        self.reached = End(before, head.chain)

    def _compare_with_end(self, reached: End) -> None:
        end = self._end
        if end is not None and reached.position == end.position and reached != end:
            raise JournalDamaged(
                f"{self._directory / end_file.NAME} is not that of the records up to"
                f" {end.position}: one of them was replaced"
            )
