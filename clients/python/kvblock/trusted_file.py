"""Reading files that a process takes its orders, its secrets or its trust from.

Rules:
- Only a regular file is read, of at most FILE_BYTES_MAX bytes, and, where its content is trusted,
  only one of root or of the user that this process runs as: whoever owns a file can change it.
- Links are followed, because secrets are often mounted behind links. What counts is the file that
  was opened in the end, and it is judged once it is open.
- Neither opening nor reading waits for another process: not for the other end of a FIFO, not for
  the holder of a file lease. A file system that does not answer still holds its reader up.
- The standard library alone is used here, so that the client and the service can share it.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

FILE_BYTES_MAX = 1024 * 1024
"""The longest file that is read, in bytes; several times a bundle of every public authority."""

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnusableFileError(Exception):
    """A file that is not read; the text completes a sentence that begins with its path."""


class FileRead(NamedTuple):
    """What a file holds, and its permission bits."""

    content: bytes
    mode: int

    def __repr__(self) -> str:
        return "FileRead(...)"


def read_file(path: str | os.PathLike[str], *, of_any_owner: bool = False) -> FileRead:
    """The content of a file that is trusted; `of_any_owner`: whoever owns it.

    Raises:
        UnusableFileError: it cannot be read, or must not be.

    """
    try:
        # Looked at before it is opened, too: opening a device can do something.
        _check(os.stat(path), of_any_owner)
        file = os.open(path, _FLAGS)
        try:
            opened = os.fstat(file)
            _check(opened, of_any_owner)
            return FileRead(_content(file), stat.S_IMODE(opened.st_mode))
        finally:
            os.close(file)
    except OSError as error:
        raise UnusableFileError(error.strerror or type(error).__name__) from error
    except ValueError as error:
        raise UnusableFileError("is no path of a file") from error


def _check(there: os.stat_result, of_any_owner: bool) -> None:
    if not stat.S_ISREG(there.st_mode):
        kind = _KINDS.get(stat.S_IFMT(there.st_mode), "of an unknown kind")
        raise UnusableFileError(f"is {kind}; must be a regular file")
    own = os.geteuid()
    if not of_any_owner and there.st_uid not in (0, own):
        ours = f" or to user {own}, which reads it" if own else ", which reads it"
        raise UnusableFileError(f"belongs to user {there.st_uid}; must belong to root{ours}")


def _content(file: int) -> bytes:
    parts: list[bytes] = []
    left = FILE_BYTES_MAX + 1
    while left and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    if not left:
        raise UnusableFileError(f"is longer than {FILE_BYTES_MAX} bytes")
    return b"".join(parts)
