"""Segments as SQLite databases with one table of records each, and one with a head.

Rules:
- The head is a row that comes with the first record, in the same commit. A database without that
  table was written before there were heads.
- A segment is written through one connection that nobody else has, in exclusive mode; its WAL is
  never checkpointed while it is written to. So a commit is a few writes to the WAL, and neither
  locks nor shared memory nor a checkpoint; and a copy of the WAL, then of the database, is sound at
  any moment.
- When a segment is sealed all of its WAL comes into the database, and the WAL is cut to nothing: a
  copy of a WAL that was cut meanwhile lacks records, and is made anew.
- A WAL has zeros behind what was written. Anything else behind its last whole commit is a torn
  tail, unless more than one commit follows: then it is damaged. It is the tail of a process that
  died, `cut_short`, when the page that was to end the commit is not there or ends in zeros: the
  head of a page is written before it, and all that from its beginning on. A page may end in zeros
  of its own, that of a long record, so damage there can pass for a tail.
- A sealed segment has no WAL. When it cannot be brought into the database, for lack of space, the
  WAL stays, and is read together with it.
"""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from kvblock_service.journal import files
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.segment import Begun, Head, Segment, Tail
from kvblock_service.journal.sqlite_copy import opened

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
WAL_HEAD_BYTES = 32
_TABLE = "CREATE TABLE records (lsn INTEGER PRIMARY KEY, record BLOB NOT NULL)"
_HEAD_TABLE = (
    "CREATE TABLE head (server_epoch INTEGER, number INTEGER, first INTEGER, chain BLOB NOT NULL)"
)
_INSERT_HEAD = "INSERT INTO head VALUES (?, ?, ?, ?)"
_INSERT = "INSERT INTO records VALUES (?, ?)"
_MAX_FRAME_AT = 16
_FRAME_HEAD_BYTES = 24
# A process that dies in a write leaves whole pages of the system's, and frames begin and end at a
# multiple of 8 bytes: so much at least is missing.
_PAGE_END_BYTES = 8


class SqliteSegment:
    """A database that is written to; `filled` is about how many bytes its WAL has."""

    def __init__(self, path: Path, reserved: int, server_epoch: int, *, synced: bool) -> None:
        """Make the database, and a WAL of so many zero bytes.

        To write into pages that the file has already takes a third less time than to append; SQLite
        takes such a WAL for an empty one. The database gets its name when it is whole: a reader
        would take a part of it for a damaged one.
        """
        self.path = path
        self.filled = 0
        self.last = 0
        self._server_epoch = server_epoch
        self._chain = b""
        partial = files.partial_path(path)
        _remove(partial)
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)
            connection.execute(_HEAD_TABLE)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        partial.replace(path)
        _write_zeros(Path(f"{path}-wal"), reserved, synced=synced)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            # The commit of one record is a few writes to the WAL, and neither locks nor shared
            # memory nor a checkpoint.
            for setting in (
                "locking_mode=EXCLUSIVE",
                "journal_mode=WAL",
                f"synchronous={'FULL' if synced else 'OFF'}",
                "wal_autocheckpoint=0",
            ):
                self._connection.execute(f"PRAGMA {setting}")
        except sqlite3.Error:
            self.abandon()
            raise
        cursor = self._connection.cursor()
        self._execute: Callable[..., Any] = cursor.execute
        self._executemany: Callable[..., Any] = cursor.executemany

    def follow(self, chain: bytes) -> None:
        """Remember it for the head; see `Segment`."""
        self._chain = chain

    def append(self, first: int, records: Sequence[bytes]) -> None:
        """Insert records in one transaction; see `Segment`."""
        try:
            if len(records) == 1 and self.last:
                (record,) = records
                size = len(record)
                self._execute(_INSERT, (first, record))
            else:
                size = sum(map(len, records))
                self._execute("BEGIN IMMEDIATE")
                if not self.last:
                    number = files.segment_number(self.path)
                    self._execute(_INSERT_HEAD, (self._server_epoch, number, first, self._chain))
                self._executemany(_INSERT, enumerate(records, start=first))
                self._execute("COMMIT")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path} cannot be written: {error}") from error
        self.last = first + len(records) - 1
        self.filled += size + PAGE_BYTES

    def seal(self) -> None:
        """Bring everything into the database itself and close it; see `Segment`."""
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise JournalError(f"{self.path}-wal stays: {error}") from error
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close it, whatever it is in."""
        with suppress(sqlite3.Error):
            self._connection.close()


class SqliteFormat:
    """Makes and reads such databases; see `Format`."""

    suffix = "db"

    def make(self, path: Path, size: int, server_epoch: int, *, synced: bool) -> Segment:
        """Make a database, and a WAL that has its space; see `Format`."""
        try:
            return SqliteSegment(path, size + size // 4, server_epoch, synced=synced)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be made: {error}") from error
        except OSError as error:
            raise JournalError(f"{path} cannot be made: {error.strerror}") from error

    def begun(self, path: Path) -> Begun:
        """The row of the head; without one, the least position in the table."""
        with opened(path) as (connection, _), _damage(path):
            if _has_table(connection, "head"):
                found = connection.execute("SELECT * FROM head").fetchall()
                if found:
                    head = _head(path, found)
                    return Begun(head.first, head)
            if not _has_table(connection, "records"):
                return Begun()
            (first,) = connection.execute("SELECT min(lsn) FROM records").fetchone()
        return Begun() if first is None else Begun(int(first))

    def rows(self, path: Path, after: int, tails: list[Tail]) -> Iterator[Entry]:
        """The rows of the table, and what of the WAL is none."""
        with opened(path) as (connection, at), _damage(path):
            if _has_table(connection, "records"):
                yield from _entries(path, connection, after)
            tail = _tail(path, at) if at else None
        if tail:
            tails.append(tail)

    def shrink(self, path: Path, torn: int) -> None:
        """Bring the WAL into its database: it has its full space otherwise.

        A server that dies often would fill the disk, and each start would read all of that.
        """
        del torn  # SQLite knows.
        if not Path(f"{path}-wal").exists():
            return
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise JournalError(f"{path}-wal stays: {error}") from error

    def remove(self, path: Path) -> None:
        """Remove a database with its WAL, also one that was not finished."""
        _remove(files.partial_path(path))
        _remove(path)


def _remove(path: Path) -> None:
    # The database last, so that no WAL is left without one.
    for suffix in ("-shm", "-wal", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _write_zeros(path: Path, size: int, *, synced: bool) -> None:
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


def _entries(path: Path, connection: sqlite3.Connection, after: int) -> Iterator[Entry]:
    """The records of an open segment behind a position."""
    found = connection.execute(
        "SELECT lsn, record FROM records WHERE lsn > ? ORDER BY lsn", (after,)
    )
    for position, record in found:
        if type(record) is not bytes:
            raise JournalDamaged(f"{path} is damaged: record {position} is no bytes")
        yield Entry(position, record)


def _head(path: Path, rows: list[Any]) -> Head:
    """The only row of the table of heads."""
    if len(rows) != 1 or list(map(type, rows[0])) != [int, int, int, bytes]:
        raise JournalDamaged(f"{path} is damaged: it has not one head")
    return Head(*rows[0])


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether a segment got as far as having a table: its process may have died before."""
    found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (name,))
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
    cut_short = True
    if not wal.exists():
        # SQLite removes the WAL of an empty database when it opens it, here that of the copy.
        raise JournalDamaged(f"{path} is damaged: it is empty, and {path.name}-wal is not")
    with wal.open("rb") as file:
        for start in range(whole, wal.stat().st_size, FRAME_BYTES):
            file.seek(start)
            head = file.read(_FRAME_HEAD_BYTES)
            if any(head):
                end = start + FRAME_BYTES
                # The frame that ends a commit says how many pages the database has then.
                if any(head[4:8]):
                    commits += 1
                    page = file.read(PAGE_BYTES)
                    cut_short = len(page) < PAGE_BYTES or not any(page[-_PAGE_END_BYTES:])
    if commits > 1:
        raise JournalDamaged(f"{path}-wal is damaged at byte {whole}, and {commits} commits follow")
    return Tail(Path(f"{path}-wal"), end - whole, cut_short) if end > whole else None


def _frames(at: Path) -> int:
    """How many frames of a WAL are sound, as SQLite has noted in its index of the WAL."""
    try:
        with Path(f"{at}-shm").open("rb") as file:
            file.seek(_MAX_FRAME_AT)
            return int.from_bytes(file.read(4), sys.byteorder)
    except FileNotFoundError:
        # The database says that it has no WAL, so SQLite has not looked into it.
        return 0
