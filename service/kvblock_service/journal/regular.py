"""Opening files of the state directory: regular files, and nothing else.

Rules:
- No symbolic link is followed, and nothing is waited for: a FIFO, a socket, a directory or a link
  in place of a file is an error that says what is there.
- Whose file it is does not matter: root looks at the state of any service, and a directory that a
  server has made lets in nobody but its owner.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvblock_service.journal.interface import JournalDamaged, JournalError

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, and answer its descriptor; one that is made has mode 0600.

    Raises:
        FileNotFoundError: there is nothing, and `flags` do not say to make it.
        OSError: it cannot be opened, or is something else; `strerror` says what it is.

    """
    try:
        number = os.open(path, flags | _SAFELY, 0o600)
    except OSError as error:
        with suppress(FileNotFoundError):
            refuse_irregular(path, os.lstat(path).st_mode)
        raise error from None
    try:
        refuse_irregular(path, os.fstat(number).st_mode)
    except OSError:
        os.close(number)
        raise
    return number


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Raises:
        FileNotFoundError: there is nothing.
        OSError: it cannot be read, is something else, or has more than `limit` bytes.

    """
    with os.fdopen(open_regular(path), "rb") as file:
        if limit is None:
            return file.read()
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit} bytes", str(path))
    return data


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises JournalDamaged when a file that has to be read cannot be; FileNotFoundError passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JournalDamaged(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def failing(doing: str, path: Path) -> Iterator[None]:
    """Raises JournalError when a file or directory cannot be read, written or whatever."""
    try:
        yield
    except OSError as error:
        raise JournalError(f"{path} cannot be {doing}: {error.strerror}") from error


def refuse_irregular(path: Path, mode: int) -> None:
    """Raises OSError unless that is the mode of a regular file."""
    if not stat.S_ISREG(mode):
        words = next((words for is_kind, words in _KINDS if is_kind(mode)), "a device")
        raise OSError(errno.EINVAL, f"it is {words}, not a regular file", str(path))
