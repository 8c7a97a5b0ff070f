"""A text stream that never waits for its reader, and says what the reader has missed.

Rules:
- `write` puts a text into a queue and returns. A thread writes what is in the queue to the
  descriptor, in order.
- The queue is bounded. What does not fit is dropped, a text at a time, until everything that is in
  the queue has been written; then a line tells how many were dropped. What the descriptor does not
  take, because its reader is gone or its disk is full, is dropped and counted in the same way.
- The end waits for the reader no longer than it is asked to. After it, a text is written if it can
  be without waiting, and is dropped otherwise.
"""

import contextlib
import io
import os
import queue
import threading
from collections.abc import Callable

from kvblock_service.descriptors import write_all, write_at_once

PENDING_MAX = 4 * 1024 * 1024
"""Characters that wait to be written, when nothing else is said."""

_BATCH = 65_536


class LogStream(io.TextIOBase):
    """Writes to a descriptor for whoever must not be held up by it.

    `told` makes the line that says how many texts were dropped. `pending_max` is in characters.
    """

    def __init__(
        self, descriptor: int, told: Callable[[int], str], pending_max: int = PENDING_MAX
    ) -> None:
        super().__init__()
        self.dropped = 0
        """Texts that were dropped so far."""
        self._descriptor = descriptor
        self._told = told
        self._pending_max = pending_max
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # A text that is written while one is written, by a finalizer, comes from the same thread.
        self._lock = threading.RLock()
        self._pending = 0
        self._full = False
        self._untold = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Have a text written, if there is room for it; answers its length."""
        with self._lock:
            if self._ended:
                self._write_at_once(text)
            elif self._full or self._pending + len(text) > self._pending_max:
                # A text that is too long for an empty queue is no reason to drop the next one.
                self._full = self._pending > 0
                self._drop(1)
            else:
                self._pending += len(text)
                self._queue.put(text)
        return len(text)

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether a terminal shows what is written."""
        return os.isatty(self._descriptor)

    def end(self, seconds: float) -> None:
        """Wait up to so many seconds until everything is written, and end; works once."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self._queue.put(None)
        self._thread.join(seconds)

    def _drop(self, texts: int) -> None:
        self.dropped += texts
        self._untold += texts

    def _run(self) -> None:
        while texts := self._next_texts():
            written = self._write_all("".join(texts))
            with self._lock:
                self._pending -= sum(map(len, texts))
                if not self._pending:
                    self._full = False
                if not written:
                    self._drop(len(texts))
                untold = self._untold if written and not self._full else 0
                self._untold -= untold
            if untold:
                self._write_all(self._told(untold))

    def _next_texts(self) -> list[str]:
        """Wait for texts and take a batch of them; empty when there will be no more."""
        texts: list[str] = []
        length = 0
        text = self._queue.get()
        while text is not None:
            texts.append(text)
            length += len(text)
            if length >= _BATCH:
                return texts
            try:
                text = self._queue.get_nowait()
            except queue.Empty:
                return texts
        if texts:
            self._queue.put(None)
        return texts

    def _write_all(self, text: str) -> bool:
        """Write a text, however long that takes; answers whether it could be written."""
        try:
            write_all(self._descriptor, _encoded(text))
        except OSError:
            return False
        return True

    def _write_at_once(self, text: str) -> None:
        """Write a text after the end, unless the thread still stands in an earlier one."""
        written = False
        if not self._thread.is_alive():
            with contextlib.suppress(OSError):
                written = write_at_once(self._descriptor, _encoded(text))
        if not written:
            self._drop(1)


def _encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
