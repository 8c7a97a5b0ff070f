"""One memory file: made with all of its bytes, checked before it is used again, removed.

Rules:
- All bytes are really allocated: an engine that writes to a mapped file for which no memory is left
  would be killed (SIGBUS).
- A new file is for its maker alone until its owner, group and mode are set: at no moment may more
  users open it than are meant to.
- A file that is there is used again only if it is what was made: by its kind, owner, inode and
  size. Its content is not touched.
- A symbolic link is never followed.
"""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal.regular import open_regular


class MemoryFileError(Exception):
    """The memory of a pool cannot be had; the text says why, and what to do."""


class FileAccess(NamedTuple):
    """Who may open a memory file; an owner or group of None is that of the server."""

    mode: int = 0o600
    owner: int | None = None
    group: int | None = None

    @property
    def user(self) -> int:
        """The number of the owner."""
        return os.geteuid() if self.owner is None else self.owner


def make(path: Path, size: int, access: FileAccess) -> int:
    """Make a file of `size` bytes and answer its inode; nothing stays when that fails.

    Raises MemoryFileError: there is not enough space, or the file cannot be made.
    """
    _refuse_too_large(path, size)
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _allocate(path, number, size)
        _hand_over(path, number, access)
        return os.fstat(number).st_ino
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(number)


def reuse(path: Path, size: int, inode: int, access: FileAccess) -> None:
    """Check a file that was made before, and let those open it who are meant to now.

    Raises:
        MemoryFileError: it is not that file, or not all of its bytes can be had.
        FileNotFoundError: it is gone.

    """
    try:
        number = open_regular(path, os.O_RDWR)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _refuse_other(path, os.fstat(number), size, inode, access)
        _allocate(path, number, size)
        _hand_over(path, number, access)
    finally:
        os.close(number)


def remove_unfinished(path: Path, access: FileAccess) -> None:
    """Remove what a server left that died before its file was whole; raises MemoryFileError."""
    try:
        number = open_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        user = os.fstat(number).st_uid
    finally:
        os.close(number)
    if user not in (os.geteuid(), access.user):
        raise MemoryFileError(f"{path} belongs to user {user}; remove it")
    path.unlink(missing_ok=True)


def _refuse_too_large(path: Path, size: int) -> None:
    try:
        found = os.statvfs(path.parent)
    except OSError as error:
        raise _unusable(path, error) from error
    free = found.f_bavail * found.f_frsize
    # What has no limit tells no blocks.
    if found.f_blocks and free < size:
        raise _too_little(path, size, free)


def _too_little(path: Path, size: int, free: int) -> MemoryFileError:
    missing = f"{size - free} are missing" if free < size else "they cannot be had"
    return MemoryFileError(
        f"{path} is to have {size} bytes, and {path.parent} has {free} left: {missing}. Make"
        " room there, give the file system more, give the pool fewer blocks, or name another place"
        " with memory_dir"
    )


def _allocate(path: Path, number: int, size: int) -> None:
    try:
        os.posix_fallocate(number, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            found = os.fstatvfs(number)
            had = os.fstat(number).st_blocks * 512
            raise _too_little(path, size, had + found.f_bavail * found.f_frsize) from error
        raise _unusable(path, error) from error


def _hand_over(path: Path, number: int, access: FileAccess) -> None:
    mode, owner, group = access
    try:
        # A mode that permits more than the new one must not meet the new owner or group.
        os.fchmod(number, os.fstat(number).st_mode & mode)
        if owner is not None or group is not None:
            os.fchown(number, -1 if owner is None else owner, -1 if group is None else group)
        os.fchmod(number, mode)
    except OSError as error:
        problem = f"unix_owner, unix_group, unix_mode: {error.strerror}"
        raise MemoryFileError(f"{path}: {problem}") from error


def _refuse_other(
    path: Path, found: os.stat_result, size: int, inode: int, access: FileAccess
) -> None:
    problem = ""
    if found.st_uid != access.user:
        problem = f"belongs to user {found.st_uid}, not to user {access.user}"
    elif found.st_ino != inode:
        problem = "is not the file that this server made: another one is in its place"
    elif found.st_nlink != 1:
        problem = "has another name, too: it is a hard link"
    elif found.st_size != size:
        problem = f"has {found.st_size} bytes, and the pool's memory has {size}"
    if problem:
        raise MemoryFileError(
            f"{path} {problem}. Stop the engines that use it and remove it (kvblock memory clean"
            f" {path}), or restore what was there"
        )


def _unusable(path: Path, error: OSError) -> MemoryFileError:
    return MemoryFileError(
        f"{path} cannot be used as a pool's memory: {error.strerror}; remove what is there, or name"
        " another place with memory_dir"
    )
