"""What a SQLite journal does apart from the thread that commits: make, close and remove segments.

Rules:
- One segment is always being made ready, so that the committing thread finds it.
- A segment is sealed when it is closed. When its WAL cannot be brought into the database, for lack
  of space, the WAL stays, and is read together with it.
- Files are removed oldest first, and only sealed ones that a snapshot covers; a crash in between
  leaves what a restart can read.
- What goes wrong is told in `trouble`, and is tried again when it is asked for again.
"""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from kvblock_service.journal import files
from kvblock_service.journal.interface import JournalError

TROUBLE_MAX = 100
RETRY_SECONDS = 1.0
"""How long after a failure nobody tries to make a segment ready: a full disk stays full a while."""


class Segment:
    """A database that is written to.

    `filled` is about how many bytes its WAL has; `last` is the position of its last record, 0
    before the first.
    """

    def __init__(self, path: Path, reserved: int, *, synced: bool) -> None:
        """Make the database, and a WAL of so many zero bytes.

        To write into pages that the file has already takes a third less time than to append; SQLite
        takes such a WAL for an empty one. The database gets its name when it is whole: a reader
        would take a part of it for a damaged one.
        """
        self.path = path
        self.filled = 0
        self.last = 0
        partial = files.partial_path(path)
        files.remove_segment(partial)
        with closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA synchronous={'FULL' if synced else 'OFF'}")
            connection.execute(f"PRAGMA page_size={files.PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(files.TABLE)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        partial.replace(path)
        files.write_zeros(Path(f"{path}-wal"), reserved, synced=synced)
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
        self.execute: Callable[..., Any] = cursor.execute
        self.executemany: Callable[..., Any] = cursor.executemany

    def seal(self) -> None:
        """Bring everything into the database itself and close it.

        Raises:
            sqlite3.Error: that failed; the WAL is still there.

        """
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Close it, whatever it is in."""
        with suppress(sqlite3.Error):
            self._connection.close()


class Keeper:
    """The thread that serves one journal; it starts with the first request.

    `reserved` is how many bytes the WAL of a new segment has from the start.
    `sealed_position`: records up to there are in files that nobody writes to any more.
    """

    def __init__(self, directory: Path, reserved: int, *, synced: bool) -> None:
        self.sealed_position = 0
        self.trouble: list[str] = []
        self._directory = directory
        self._reserved = reserved
        self._synced = synced
        self._ready: queue.SimpleQueue[Segment] = queue.SimpleQueue()
        self._requests: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._making = threading.Lock()
        self._preparing = False
        self._not_before = 0.0
        self._closed: list[tuple[Path, int]] = []

    def next_segment(self, *, wait: bool, reserve: bool = True) -> Segment | None:
        """The segment that is ready, having the one after it made.

        `wait`: make one now if none is, with space of its own if `reserve`; otherwise None.

        Raises:
            JournalError: none can be made now.

        """
        try:
            segment = self._ready.get_nowait()
        except queue.Empty:
            if not wait:
                self._prepare()
                return None
            try:
                segment = self._made(self._reserved if reserve else 0)
            except (sqlite3.Error, OSError, JournalError) as error:
                raise JournalError(f"{self._directory} cannot be written: {error}") from error
        self._prepare()
        return segment

    def seal(self, segment: Segment) -> None:
        """Close a segment."""
        self._ask(lambda: self._seal(segment))

    def found(self, closed: list[tuple[Path, int]]) -> None:
        """Segments of an earlier process, in order, each with the position of its last record."""
        self._closed = closed
        for path, last in closed:
            self._ask(partial(self._take_over, path, last))

    def drop(self, up_to: int) -> None:
        """Remove what a snapshot at `up_to` stands for."""
        self._ask(lambda: self._drop(up_to))

    def settle(self) -> None:
        """Wait until all requests up to now are done."""
        self._requests.join()

    def close(self) -> None:
        """Do what was asked for, then end."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
            self._thread = None
        while not self._ready.empty():
            segment = self._ready.get_nowait()
            segment.abandon()
            files.remove_segment(segment.path)

    def _prepare(self) -> None:
        if not self._preparing and time.monotonic() >= self._not_before:
            self._preparing = True
            self._ask(self._make_ready)

    def _make_ready(self) -> None:
        try:
            if self._ready.empty():
                self._ready.put(self._made(self._reserved))
        except (sqlite3.Error, OSError):
            self._not_before = time.monotonic() + RETRY_SECONDS
            raise
        finally:
            self._preparing = False

    def _made(self, reserved: int) -> Segment:
        with self._making:
            existing = files.segments(self._directory)
            number = existing[-1][0] + 1 if existing else 1
            path = files.segment_path(self._directory, number)
            try:
                segment = Segment(path, reserved, synced=self._synced)
                if self._synced:
                    files.sync_directory(self._directory)
            except (sqlite3.Error, OSError):
                files.remove_segment(files.partial_path(path))
                files.remove_segment(path)
                raise
            return segment

    def _seal(self, segment: Segment) -> None:
        try:
            segment.seal()
        finally:
            if segment.last:
                self._closed.append((segment.path, segment.last))
                self.sealed_position = segment.last
            else:
                files.remove_segment(segment.path)

    def _take_over(self, path: Path, last: int) -> None:
        try:
            _shrink(path)
        finally:
            self.sealed_position = last

    def _drop(self, up_to: int) -> None:
        for position, path in files.snapshots(self._directory)[:-1]:
            if position < up_to:
                path.unlink(missing_ok=True)
        while self._closed and self._closed[0][1] <= up_to:
            files.remove_segment(self._closed[0][0])
            del self._closed[0]

    def _ask(self, request: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="journal-keeper", daemon=True)
            self._thread.start()
        self._requests.put(request)

    def _serve(self) -> None:
        while True:
            request = self._requests.get()
            try:
                if request is None:
                    return
                request()
            except (sqlite3.Error, OSError, JournalError) as error:
                if len(self.trouble) < TROUBLE_MAX:
                    self.trouble.append(str(error))
            finally:
                self._requests.task_done()


def _shrink(path: Path) -> None:
    """Bring the WAL of a process that died into its database: it has its full space otherwise.

    A server that dies often would fill the disk, and each start would read all of that.
    """
    if Path(f"{path}-wal").exists():
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
