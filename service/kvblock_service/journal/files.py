"""The files of a journal's directory: segments and snapshots, and their names.

Rules:
- `journal-N.log` are segments, in the order of N. Only the one with the greatest N is written to.
  A segment of another suffix has a format that this program does not read: nothing is served from
  its directory then.
- `snapshot-P` stands for all records up to position P. It appears by a rename, whole.
- A name only says where to look: what a file is stands in it, and has to agree with its name.
- What lists a directory raises JournalError when that cannot be done.
"""

import contextlib
import os
import re
from pathlib import Path

from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.regular import failing

_SEGMENT = re.compile(r"journal-(\d{10})\.log")
_OTHER = re.compile(r"journal-\d{10}\.(?!log$)([a-z]+).*")
_BLOCK_BYTES = 512  # what st_blocks counts
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


def segment_path(directory: Path, number: int) -> Path:
    """Where the segment of that number is."""
    return directory / f"journal-{number:010}.log"


def segment_number(path: Path) -> int:
    """The number in the name of a segment."""
    return int(path.name[len("journal-") :].partition(".")[0])


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The numbers and paths of all segments, in order."""
    return _numbered(directory, _SEGMENT)


def of_other_formats(directory: Path) -> list[Path]:
    """Segments whose suffix is not that of this program's format, in order."""
    return [path for path in listed(directory) if _OTHER.fullmatch(path.name)]


def refuse_other_formats(directory: Path) -> None:
    """Raises JournalError when there are segments in SQLite, JournalDamaged for other formats."""
    for path in of_other_formats(directory):
        if path.name.partition(".")[2].startswith("db"):
            raise JournalError(
                f"{path} is a segment in SQLite, which this version does not read; nothing was"
                " changed. Start the version that wrote it with journal_format=append, until a"
                f" snapshot has replaced every *.db in {directory}; or, to begin with empty pools,"
                f" stop the engines and run `kvblock journal set-aside {directory.parent}`"
            )
        raise JournalDamaged(f"{path} is a segment of a format that this program does not know")


def snapshots(directory: Path) -> list[tuple[int, Path]]:
    """The positions and paths of all snapshots, in order."""
    return _numbered(directory, _SNAPSHOT)


def snapshot_path(directory: Path, position: int) -> Path:
    """Where the snapshot at that position is."""
    return directory / f"snapshot-{position:020}"


def _numbered(directory: Path, pattern: "re.Pattern[str]") -> list[tuple[int, Path]]:
    found = ((pattern.fullmatch(path.name), path) for path in listed(directory))
    return sorted((int(match[1]), path) for match, path in found if match)


def listed(directory: Path) -> list[Path]:
    """What is in a directory, in the order of the names."""
    with failing("read", directory):
        return sorted(directory.iterdir())


def space_taken(directory: Path) -> int:
    """Bytes that the files of a directory take on their device; 0 when it cannot be listed.

    Files may come and go meanwhile.
    """
    taken = 0
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                taken += entry.stat(follow_symlinks=False).st_blocks * _BLOCK_BYTES
    return taken


def partial_path(path: Path) -> Path:
    """Where this process makes a file that is to appear whole."""
    return path.with_name(f"{path.name}.{os.getpid()}.partial")


def write_whole(path: Path, data: bytes, *, synced: bool) -> None:
    """Make a file appear with its content; nothing appears when that fails with an OSError."""
    partial = partial_path(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if synced:
        sync_directory(path.parent)


def remove_partial(directory: Path) -> None:
    """Remove what a process that died has not finished, or raise JournalError."""
    with failing("written", directory):
        for path in directory.glob("*.partial*"):
            path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive the host."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
