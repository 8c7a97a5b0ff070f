"""What a journal in files does apart from the thread that writes: make, close, remove segments.

Rules:
- One segment is always being made ready, so that the writing thread finds it.
- Segments are used in the order of their numbers, since a later one makes void what an earlier one
  has from its position on. So a number is given once, and only when no other segment is ready:
  `_making` guards both.
- Files are removed oldest first, and only closed ones that a snapshot covers; a crash in between
  leaves what a restart can read.
- What goes wrong is in `trouble`, and is tried again when it is asked for again.
- Anything else that ends a request is a bug: it is in `bug`, and no further request is carried out,
  but each one ends. The owner of the journal has to look there.

Threads: `next_segment` and `seal` are for whoever holds the journal's `_writing`; `found`, `drop`,
`settle` and `close` for the thread of the journal's owner; what begins with an underscore and is
asked for through `_ask` runs in a thread of its own. A segment that was given out belongs to
who has it until it is given to `seal`.
"""

import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kvblock_service.journal import files
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.segment import Segment, Tail, cut

TROUBLE_MAX = 100
RETRY_SECONDS = 1.0
"""How long after a failure no segment is made ready: a full disk stays full a while."""


class Maintenance:
    """The thread that serves one journal; it starts with the first request.

    `sealed_position`: records up to there are in closed files. `trouble`:
    what could not be done, the newest last. `bug`: what has ended the maintenance.
    """

    def __init__(self, directory: Path, server_epoch: int, *, synced: bool) -> None:
        self.sealed_position = 0
        self.trouble: list[str] = []
        self.bug: Exception | None = None
        self._directory = directory
        self._server_epoch = server_epoch
        self._synced = synced
        self._ready: queue.SimpleQueue[Segment] = queue.SimpleQueue()
        self._requests: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._making = threading.Lock()
        self._number = 0
        self._used = 0
        self._preparing = False
        self._not_before = 0.0
        self._closed: list[tuple[Path, int]] = []

    def next_segment(self, *, wait: bool) -> Segment | None:
        """The segment that is ready, having the one after it made.

        `wait`: make one now if none is ready; otherwise None.

        Raises:
            JournalError: none can be made now.

        """
        made = self._made_ready()
        if made is None and wait:
            with self._making:
                # Another thread may have been making one, and that is to be used before any other.
                made = self._made_ready() or self._make()
        if not self._preparing and time.monotonic() >= self._not_before:
            self._preparing = True
            self._ask(self._make_ready)
        if made is not None:
            number = files.segment_number(made.path)
            assert number > self._used, "segments have to be used in the order of their numbers"
            self._used = number
        return made

    def seal(self, segment: Segment) -> None:
        """Close a segment."""
        self._ask(partial(self._seal, segment))

    def found(self, closed: list[tuple[Path, int]], tails: list[Tail]) -> None:
        """Segments of an earlier process, in order, each with the position of its last record."""
        torn = {tail.path: tail.size for tail in tails}
        self._closed = closed
        for path, last in closed:
            self._ask(partial(self._take_over, path, last, torn.get(path, 0)))

    def drop(self, up_to: int) -> None:
        """Remove what a snapshot at `up_to` stands for."""
        self._ask(partial(self._drop, up_to))

    def settle(self) -> None:
        """Wait until all requests up to now are done."""
        self._requests.join()

    def close(self) -> None:
        """Do what was asked for, then end."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join()
            self._thread = None
        while (made := self._made_ready()) is not None:
            made.close()
            made.path.unlink(missing_ok=True)

    def _made_ready(self) -> Segment | None:
        try:
            return self._ready.get_nowait()
        except queue.Empty:
            return None

    def _make_ready(self) -> None:
        try:
            with self._making:
                if self._ready.empty():
                    self._ready.put(self._make())
        except JournalError:
            self._not_before = time.monotonic() + RETRY_SECONDS
            raise
        finally:
            self._preparing = False

    def _make(self) -> Segment:
        """A segment with the next number; `_making` is held."""
        existing = files.segments(self._directory)
        number = max(self._number, existing[-1][0] if existing else 0) + 1
        path = files.segment_path(self._directory, number)
        segment = Segment(path, self._server_epoch, synced=self._synced)
        if self._synced:
            try:
                files.sync_directory(self._directory)
            except OSError as error:
                segment.close()
                path.unlink(missing_ok=True)
                raise JournalError(
                    f"{self._directory} cannot be written: {error.strerror}"
                ) from error
        self._number = number
        return segment

    def _seal(self, segment: Segment) -> None:
        segment.close()
        if segment.last:
            self._closed.append((segment.path, segment.last))
            self.sealed_position = segment.last
        else:
            segment.path.unlink(missing_ok=True)

    def _take_over(self, path: Path, last: int, torn: int) -> None:
        try:
            if torn:
                cut(path, torn)
        finally:
            self.sealed_position = last

    def _drop(self, up_to: int) -> None:
        for position, path in files.snapshots(self._directory)[:-1]:
            if position < up_to:
                path.unlink(missing_ok=True)
        while self._closed and self._closed[0][1] <= up_to:
            self._closed[0][0].unlink(missing_ok=True)
            del self._closed[0]

    def _ask(self, request: Callable[[], None]) -> None:
        with self._starting:
            if self._thread is None:
                name = "journal-maintenance"
                self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._thread.start()
        self._requests.put(request)

    def _serve(self) -> None:
        while True:
            request = self._requests.get()
            try:
                if request is None:
                    return
                if self.bug is None:
                    request()
            except (OSError, JournalError) as error:
                if len(self.trouble) < TROUBLE_MAX:
                    self.trouble.append(str(error))
            except Exception as bug:  # noqa: BLE001 - the owner of the journal raises it
                self.bug = bug
            finally:
                self._requests.task_done()
