"""The files of a journal's directory: segments and snapshots, and their names.

Rules:
- `journal-N.SUFFIX` are segments, in the order of N; the suffix tells the format. Only the one with
  the greatest N is written to.
- `snapshot-P` stands for all records up to position P. It appears by a rename, whole.
- A name only says where to look: what a file is stands in it, and has to agree with its name.
"""

import contextlib
import os
import re
from pathlib import Path

from kvblock_service.journal.interface import JournalError

_SEGMENT = re.compile(r"journal-(\d{10})\.[a-z]+")
_BESIDE = re.compile(r"(journal-\d{10}\.[a-z]+)-[a-z]+")
_BLOCK_BYTES = 512  # what st_blocks counts
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


def segment_path(directory: Path, number: int, suffix: str) -> Path:
    """Where the segment of that number and format is."""
    return directory / f"journal-{number:010}.{suffix}"


def segment_number(path: Path) -> int:
    """The number in the name of a segment."""
    return int(path.name[len("journal-") :].partition(".")[0])


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The numbers and paths of all segments, in order.

    Raises:
        JournalError: the directory cannot be listed.

    """
    return _numbered(directory, _SEGMENT)


def orphan(directory: Path) -> Path | None:
    """A file that belongs to a segment, as a WAL does, and whose segment is not there.

    It is made after its segment, and removed before.

    Raises:
        JournalError: the directory cannot be listed.

    """
    for path in _listed(directory):
        found = _BESIDE.fullmatch(path.name)
        if found and not os.path.lexists(path.with_name(found[1])) and os.path.lexists(path):
            return path
    return None


def snapshots(directory: Path) -> list[tuple[int, Path]]:
    """The positions and paths of all snapshots, in order.

    Raises:
        JournalError: the directory cannot be listed.

    """
    return _numbered(directory, _SNAPSHOT)


def snapshot_path(directory: Path, position: int) -> Path:
    """Where the snapshot at that position is."""
    return directory / f"snapshot-{position:020}"


def _numbered(directory: Path, pattern: "re.Pattern[str]") -> list[tuple[int, Path]]:
    found = ((pattern.fullmatch(path.name), path) for path in _listed(directory))
    return sorted((int(match[1]), path) for match, path in found if match)


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError as error:
        raise JournalError(f"{directory} cannot be read: {error.strerror}") from error


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
    """Make a file appear with its content; nothing appears when that fails.

    Raises:
        OSError: it could not be written.

    """
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
    """Remove what a process that died has not finished.

    Raises:
        JournalError: that is not permitted.

    """
    try:
        for path in directory.glob("*.partial*"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise JournalError(f"{directory} cannot be written: {error.strerror}") from error


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive the host."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
