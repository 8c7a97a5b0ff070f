"""The files of a journal's directory, and how they are read without changing any of them.

Rules:
- `journal-N.db` are segments, SQLite databases with one table of records each; only the one with
  the greatest N is written to, and never by a second process: a process begins with a new segment.
- A segment's records from a position on are void when a later segment begins at that position: they
  belong to a write that failed, or to a tail that was cut.
- `snapshot-P` stands for all records up to position P. Snapshots and segments appear by a rename,
  whole.
- While a segment is written to, its changes go to its WAL only, by appending. So a copy of the WAL,
  then of the database, is sound at any moment. When it is closed all of its WAL comes into the
  database, and the WAL is cut to nothing: a copy of a WAL that was cut meanwhile lacks records, and
  is made anew.
- A WAL has zeros behind what was written. Anything else behind its last whole commit is a torn
  tail, unless more than one commit follows: then it is damaged.
"""

import os
import re
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError

PAGE_BYTES = 4096
TABLE = "CREATE TABLE records (lsn INTEGER PRIMARY KEY, record BLOB NOT NULL)"
FRAME_BYTES = PAGE_BYTES + 24
WAL_HEAD_BYTES = 32
_MAX_FRAME_AT = 16
_FRAME_HEAD_BYTES = 24
_SEGMENT = re.compile(r"journal-(\d{10})\.db")
_SNAPSHOT = re.compile(r"snapshot-(\d{20})")


class Tail(NamedTuple):
    """Bytes at the end of a WAL that belong to no whole commit."""

    path: Path
    size: int


def segment_path(directory: Path, number: int) -> Path:
    """Where the segment of that number is."""
    return directory / f"journal-{number:010}.db"


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


def write_zeros(path: Path, size: int, *, synced: bool) -> None:
    """Make a file of zeros that has its place on the disk.

    Raises:
        OSError: there is no space for it.

    """
    piece = bytes(1024 * 1024)
    with path.open("wb", buffering=0) as file:
        while size > 0:
            size -= file.write(piece[:size])
        if synced:
            os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive the host."""
    number = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_segment(path: Path) -> None:
    """Remove a segment; the database last, so that no WAL is left without one."""
    for suffix in ("-shm", "-wal", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


@contextmanager
def opened(path: Path) -> "Iterator[tuple[sqlite3.Connection, Path | None]]":
    """A connection that reads a segment, and the copy it reads when there is a WAL.

    Raises:
        JournalError: it cannot be copied now.
        FileNotFoundError: it was removed meanwhile.

    """
    wal = Path(f"{path}-wal")
    while True:
        size = _size(wal)
        if not size:
            with closing(_connected(path, "immutable=1")) as connection:
                yield connection, None
            return
        with tempfile.TemporaryDirectory(prefix="kvblock-") as place:
            copy = Path(place) / path.name
            if not _copied(wal, Path(f"{copy}-wal")) or _size(wal) < size:
                # It was closed meanwhile, so all of it is in the database.
                continue
            if not _copied(path, copy):
                raise FileNotFoundError(path)
            with closing(_connected(copy, "mode=ro")) as connection:
                yield connection, copy
        return


def _size(path: Path) -> int:
    """The length of a file in bytes, 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _copied(source: Path, target: Path) -> bool:
    """Whether there was a file to copy."""
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalError(f"{source} cannot be copied to {target.parent}: {error}") from error
    return True


def _connected(path: Path, how: str) -> sqlite3.Connection:
    # Quoting as a URI: a question mark or a hash in a directory's name would end the path.
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)


def first_position(path: Path) -> int | None:
    """The position of a segment's first record; None when it has none.

    Raises:
        JournalDamaged: it cannot be read.

    """
    with opened(path) as (connection, _), _damage(path):
        if not has_table(connection):
            return None
        (first,) = connection.execute("SELECT min(lsn) FROM records").fetchone()
    return None if first is None else int(first)


def rows(path: Path, after: int, tails: list[Tail]) -> Iterator[Entry]:
    """The records of a segment behind a position; adds to `tails` what is torn.

    Raises:
        JournalDamaged: it cannot be read.

    """
    with opened(path) as (connection, at), _damage(path):
        if has_table(connection):
            yield from entries(connection, after)
        tail = _tail(path, at) if at else None
    if tail:
        tails.append(tail)


def entries(connection: sqlite3.Connection, after: int) -> Iterator[Entry]:
    """The records of an open segment behind a position."""
    found = connection.execute(
        "SELECT lsn, record FROM records WHERE lsn > ? ORDER BY lsn", (after,)
    )
    return map(Entry._make, found)


def has_table(connection: sqlite3.Connection) -> bool:
    """Whether a segment got as far as having a table: its process may have died before."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'records'")
    return bool(found.fetchone()[0])


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(f"{path} cannot be read: {error}") from error


def _tail(path: Path, at: Path) -> Tail | None:
    wal = Path(f"{at}-wal")
    whole = WAL_HEAD_BYTES + _frames(at) * FRAME_BYTES
    end = whole
    commits = 0
    with wal.open("rb") as file:
        for start in range(whole, wal.stat().st_size, FRAME_BYTES):
            file.seek(start)
            head = file.read(_FRAME_HEAD_BYTES)
            if any(head):
                end = start + FRAME_BYTES
                # The frame that ends a commit says how many pages the database has then.
                commits += any(head[4:8])
    if commits > 1:
        raise JournalDamaged(f"{path}-wal is damaged at byte {whole}, and {commits} commits follow")
    return Tail(Path(f"{path}-wal"), end - whole) if end > whole else None


def _frames(at: Path) -> int:
    """How many frames of a WAL are sound, as SQLite has noted in its index of the WAL."""
    with Path(f"{at}-shm").open("rb") as file:
        file.seek(_MAX_FRAME_AT)
        return int(struct.unpack("=I", file.read(4))[0])
