"""Whose a state directory is: two locks that end with their process, and a text that names it.

Rules:
- The directory itself is locked: its name may be taken away, but not what is locked, so no second
  server finds it unlocked.
- DIR/lock is locked, too: it has the text, and an older server locks nothing else.
- The text is written into a regular file that has no other name, and into nothing else.
"""

import errno
import fcntl
import json
import os
from datetime import datetime, timezone
from pathlib import Path

from kvblock_service.journal.regular import open_regular, read_regular

_TEXT_MAX = 64 * 1024


class LockHeld(Exception):
    """Another process has a lock."""


class Lock:
    """The lock of a directory, until `release`."""

    def __init__(self, directory: Path, owner: str) -> None:
        """Lock a directory; `owner` says more about this process.

        Raises:
            LockHeld: another process has it.
            OSError: it cannot be locked.

        """
        self._files: list[int] = []
        try:
            self._files.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            _locked(self._files[0], directory)
            path = directory / "lock"
            self._files.append(open_regular(path, os.O_RDWR | os.O_CREAT))
            _locked(self._files[1], path)
            _write(self._files[1], path, owner)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let another process have it."""
        while self._files:
            os.close(self._files.pop())


def holder(directory: Path) -> str:
    """Who has a directory, in words."""
    try:
        found = json.loads(read_regular(directory / "lock", _TEXT_MAX))
        words = f"process {found['pid']}, which has it since {found['since']}"
        return f"{words} ({found['owner']})" if found["owner"] else words
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process, which has not said its name yet"


def _locked(number: int, path: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockHeld from None
    except OSError as error:
        # As of a directory on NFS, which cannot be locked.
        reason = f"it cannot be locked: {error.strerror}; it has to be on a disk of this host"
        raise OSError(error.errno, reason, str(path)) from error


def _write(number: int, path: Path, owner: str) -> None:
    if os.fstat(number).st_nlink > 1:
        raise OSError(errno.EMLINK, "it is a hard link to another file; remove it", str(path))
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = json.dumps({"pid": os.getpid(), "since": since, "owner": owner}).encode()
    os.ftruncate(number, 0)
    os.pwrite(number, content, 0)
