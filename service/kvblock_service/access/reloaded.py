"""A value that is read from files, and read again when one of them changes.

Rules:
- The first reading has to succeed. A later one that fails is logged, once for each change, and
  leaves the value as it was.
- A change is seen by the identity, size and time of the files, also when a file is replaced or a
  link to it is turned; nothing is read as long as these stay.
- Any thread may ask for a refresh; a reader sees the old value or the new one.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

ValueT = TypeVar("ValueT")

_log = logging.getLogger(__name__)

_Stamp: TypeAlias = "tuple[int, int, int, int, int] | None"


class AccessError(Exception):
    """A file of certificates, keys or identities that cannot be used; the text says why."""


class Reloaded(Generic[ValueT]):
    """What `read` made of the files at `paths` when it last succeeded, as `value`."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], ValueT]) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._stamps = self._look()
        self.value = read()

    def refresh(self) -> ValueT:
        """The value, read again if a file has changed since."""
        if self._look() != self._stamps:
            with self._lock:
                self._reload()
        return self.value

    def _reload(self) -> None:
        # Looked at before it is read: what changes meanwhile is seen the next time.
        stamps = self._look()
        if stamps == self._stamps:
            return
        files = ", ".join(map(str, self._paths))
        try:
            self.value = self._read()
        except AccessError as error:
            _log.error(
                "a file that changed cannot be used; what was read before it stays in force",
                extra={"files": files, "problem": str(error)},
            )
        else:
            _log.info("read again, after a change", extra={"files": files})
        self._stamps = stamps

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> _Stamp:
    try:
        there = os.stat(path)
    except OSError:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns
