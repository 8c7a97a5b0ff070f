"""A value that is made of files, and made anew when one of them changes.

Rules:
- The first reading has to succeed. A later one that fails, for whatever reason, is logged, once for
  each change, leaves the value as it was, and is followed by the next look as ever.
- A change is taken up when two looks in a row have found the same: what is being written meanwhile
  is not looked at twice.
- The files are read in a thread of their own, and nobody ever waits for it: `value` is the old one
  until it is the new one.
- What is remembered of the files is a digest.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from kvblock.trusted_file import FileRead, UnusableFileError, read_file

ValueT = TypeVar("ValueT")

LOOK_SECONDS = 0.25
"""Time between two looks; a change that lasts is in force after about twice as long."""

_log = logging.getLogger(__name__)

_Seen: TypeAlias = "tuple[tuple[int, bytes], ...] | str"


class AccessError(Exception):
    """A file of certificates, keys or identities that cannot be used; the text says why."""


class Reloaded(Generic[ValueT]):
    """What `parse` made of files when it last succeeded, as `value`.

    `files` has the paths by the settings that name them, and `parse` is given what they hold, by
    the same settings. It raises AccessError for what cannot be used.
    """

    def __init__(
        self, files: Mapping[str, Path], parse: Callable[[Mapping[str, FileRead]], ValueT]
    ) -> None:
        self._files = dict(files)
        self._parse = parse
        self._ended = threading.Event()
        found = self._read()
        self.value = self._parsed(found)
        self._judged = self._found_last = _seen(found)

    def watch(self) -> None:
        """Begin to look for changes, in a thread that ends with the process or at `stop`."""
        # A daemon: on a file system that does not answer it may never end.
        threading.Thread(target=self._watch, name=self._names(), daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def look(self) -> None:
        """Look for a change once."""
        found: Mapping[str, FileRead] | AccessError
        try:
            found = self._read()
        except AccessError as error:
            found = error
        seen = str(found) if isinstance(found, AccessError) else _seen(found)
        is_settled, self._found_last = seen == self._found_last, seen
        if is_settled and seen != self._judged:
            self._judged = seen
            self._take_up(found)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - it is logged, and the next look may go well
                _log.critical("cannot look for changes", extra=self._told(), exc_info=True)

    def _take_up(self, found: Mapping[str, FileRead] | AccessError) -> None:
        try:
            if isinstance(found, AccessError):
                raise found
            self.value = self._parsed(found)
        except AccessError as error:
            _log.error(
                "a file that changed cannot be used; what was read before it stays in force",
                extra=self._told() | {"problem": str(error)},
            )
        else:
            _log.info("read again, after a change", extra=self._told())

    def _read(self) -> dict[str, FileRead]:
        found = {}
        for setting, path in self._files.items():
            try:
                found[setting] = read_file(path)
            except UnusableFileError as error:
                raise AccessError(f"{setting} {path}: {error}") from error
        return found

    def _parsed(self, found: Mapping[str, FileRead]) -> ValueT:
        try:
            return self._parse(found)
        except AccessError:
            raise
        except Exception as error:
            # Its text may hold what the file does.
            problem = f"cannot be understood ({type(error).__name__})"
            raise AccessError(f"{self._names()}: {problem}") from error

    def _names(self) -> str:
        return ", ".join(f"{setting} {path}" for setting, path in self._files.items())

    def _told(self) -> dict[str, object]:
        return {"files": ", ".join(map(str, self._files.values()))}


def _seen(found: Mapping[str, FileRead]) -> _Seen:
    return tuple((one.mode, hashlib.sha256(one.content).digest()) for one in found.values())
