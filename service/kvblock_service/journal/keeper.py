"""What a journal in files does apart from the thread that commits: make, close, remove segments.

Rules:
- One segment is always being made ready, so that the committing thread finds it.
- A segment is sealed when it is closed.
- Files are removed oldest first, and only sealed ones that a snapshot covers; a crash in between
  leaves what a restart can read.
- What goes wrong is told in `trouble`, and is tried again when it is asked for again.
"""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kvblock_service.journal import files
from kvblock_service.journal.formats import format_of
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.segment import Format, Segment, Tail

TROUBLE_MAX = 100
RETRY_SECONDS = 1.0
"""How long after a failure nobody tries to make a segment ready: a full disk stays full a while."""


class Keeper:
    """The thread that serves one journal; it starts with the first request.

    New segments are made in `kind`, and get about `size` bytes before the next one follows.
    `sealed_position`: records up to there are in files that nobody writes to any more.
    """

    def __init__(self, directory: Path, kind: Format, size: int, *, synced: bool) -> None:
        self.sealed_position = 0
        self.trouble: list[str] = []
        self._directory = directory
        self._kind = kind
        self._size = size
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
                segment = self._made(self._size if reserve else 0)
            except (OSError, JournalError) as error:
                raise JournalError(f"{self._directory} cannot be written: {error}") from error
        self._prepare()
        return segment

    def seal(self, segment: Segment) -> None:
        """Close a segment."""
        self._ask(lambda: self._seal(segment))

    def found(self, closed: list[tuple[Path, int]], tails: list[Tail]) -> None:
        """Segments of an earlier process, in order, each with the position of its last record."""
        torn = {tail.path: tail.size for tail in tails}
        self._closed = closed
        for path, last in closed:
            self._ask(partial(self._take_over, path, last, torn.get(path, 0)))

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
            format_of(segment.path).remove(segment.path)

    def _prepare(self) -> None:
        if not self._preparing and time.monotonic() >= self._not_before:
            self._preparing = True
            self._ask(self._make_ready)

    def _make_ready(self) -> None:
        try:
            if self._ready.empty():
                self._ready.put(self._made(self._size))
        except (OSError, JournalError):
            self._not_before = time.monotonic() + RETRY_SECONDS
            raise
        finally:
            self._preparing = False

    def _made(self, size: int) -> Segment:
        with self._making:
            existing = files.segments(self._directory)
            number = existing[-1][0] + 1 if existing else 1
            path = files.segment_path(self._directory, number, self._kind.suffix)
            try:
                segment = self._kind.make(path, size, synced=self._synced)
                if self._synced:
                    files.sync_directory(self._directory)
            except (OSError, JournalError):
                format_of(path).remove(path)
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
                format_of(segment.path).remove(segment.path)

    def _take_over(self, path: Path, last: int, torn: int) -> None:
        try:
            format_of(path).shrink(path, torn)
        finally:
            self.sealed_position = last

    def _drop(self, up_to: int) -> None:
        for position, path in files.snapshots(self._directory)[:-1]:
            if position < up_to:
                path.unlink(missing_ok=True)
        while self._closed and self._closed[0][1] <= up_to:
            format_of(self._closed[0][0]).remove(self._closed[0][0])
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
            except (OSError, JournalError) as error:
                if len(self.trouble) < TROUBLE_MAX:
                    self.trouble.append(str(error))
            finally:
                self._requests.task_done()
