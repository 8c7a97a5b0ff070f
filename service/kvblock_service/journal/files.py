"""The files of a journal's directory: segments and snapshots, and their names.

Rules:
- `journal-N.SUFFIX` are segments, in the order of N; the suffix tells the format. Only the one with
  the greatest N is written to.
- `snapshot-P` stands for all records up to position P. It appears by a rename, whole.
"""

import contextlib
import os
import re
from pathlib import Path

from kvblock_service.journal.interface import JournalError

_SEGMENT = re.compile(r"journal-(\d{10})\.[a-z]+")
_BLOCK_BYTES = 512  # what st_blocks counts
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


def segment_path(directory: Path, number: int, suffix: str) -> Path:
    """Where the segment of that number and format is."""
    return directory / f"journal-{number:010}.{suffix}"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The numbers and paths of all segments, in order.

    Raises:
        JournalError: the directory cannot be listed.

    """
    return _numbered(directory, _SEGMENT)


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
    try:
        paths = list(directory.iterdir())
    except OSError as error:
        raise JournalError(f"{directory} cannot be read: {error.strerror}") from error
    found = ((pattern.fullmatch(path.name), path) for path in paths)
    return sorted((int(match[1]), path) for match, path in found if match)


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
