"""The file beside a pool's memory that says whose it is, and is locked while its server lives.

Rules:
- Only the server's user may open it, so no engine can hold its lock, as it could of the memory.
- The lock is one of an open file description: it ends with the process, and `is_locked` asks
  without taking it, so that nobody who looks is in the way of a server that starts.
- The content is written once, when the memory is whole. A file without content is what a server
  left that died before.
"""

import fcntl
import json
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

from kvblock_service.journal.regular import open_regular, read_regular

SUFFIX = ".owner"
FORMAT = 1
_BYTES_MAX = 64 * 1024
_FLOCK = struct.Struct("hhqqi4x")


class OwnerLocked(Exception):
    """A living server has the file."""


class NoOwner(ValueError):
    """The content is not that of such a file; the text says what is wrong."""


class Owner(NamedTuple):
    """Whose a memory file is.

    `bytes` and `inode` are those of the memory file, and `state_dir` is that of the server, by its
    path and by its device and inode; both are empty for a server without a journal.
    """

    pool: str
    bytes: int
    inode: int
    server_epoch: int
    state_dir: str
    state_dir_inode: str


class OwnerFile:
    """An owner file that this process has locked, until `close` or `remove`."""

    def __init__(self, path: Path) -> None:
        """Lock a file, making it if need be.

        Raises:
            OwnerLocked: another process has it.
            OSError: it cannot be opened, or is no regular file.

        """
        self.path = path
        while True:
            self._number = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.fcntl(self._number, fcntl.F_OFD_SETLK, _flock())
            except BlockingIOError:
                self.close()
                raise OwnerLocked from None
            if self._is_current():
                return
            self.close()

    def read(self) -> Owner | None:
        """What it says, None while it is empty; raises NoOwner when it is something else."""
        return _parsed(os.pread(self._number, _BYTES_MAX, 0))

    def user(self) -> int:
        """The number of the user whose file it is."""
        return os.fstat(self._number).st_uid

    def write(self, owner: Owner) -> None:
        """Say whose the memory is; the file has to be empty."""
        content = json.dumps({"format": FORMAT, **owner._asdict()}).encode()
        if os.pwrite(self._number, content, 0) != len(content):
            raise OSError(0, "it was not written whole", str(self.path))

    def remove(self) -> None:
        """Remove it and let go of it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others have it; it stays where it is."""
        os.close(self._number)

    def _is_current(self) -> bool:
        """Whether the locked file is still the one behind its path."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._number))


def owner_path(memory: Path) -> Path:
    """Where the owner file of a memory file is."""
    return memory.with_name(memory.name + SUFFIX)


def memory_of(owner_file: Path) -> Path:
    """Where the memory is that an owner file stands beside."""
    return owner_file.with_name(owner_file.name.removesuffix(SUFFIX))


def is_locked(path: Path) -> bool:
    """Whether a living server has an owner file; raises OSError when it cannot be opened."""
    # To ask for a lock for writing takes a file that is open for writing.
    number = open_regular(path, os.O_RDWR)
    try:
        found = fcntl.fcntl(number, fcntl.F_OFD_GETLK, _flock())
    finally:
        os.close(number)
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def read_owner(path: Path) -> Owner | None:
    """What an owner file says, None when it is empty.

    Raises:
        NoOwner: it is something else.
        OSError: it cannot be read.

    """
    return _parsed(read_regular(path, _BYTES_MAX))


def _flock() -> bytes:
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def _parsed(data: bytes) -> Owner | None:
    if not data:
        return None
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise NoOwner("it is no owner file of kvblock") from None
    if not isinstance(found, dict) or "format" not in found:
        raise NoOwner("it is no owner file of kvblock")
    version = found.pop("format")
    if version != FORMAT:
        raise NoOwner(f"it has format {version!r:.20}; this program reads format {FORMAT}")
    kinds = Owner.__annotations__
    if found.keys() != kinds.keys() or any(type(found[key]) is not kinds[key] for key in kinds):
        raise NoOwner(f"its fields are not {', '.join(kinds)}")
    return Owner(**found)
