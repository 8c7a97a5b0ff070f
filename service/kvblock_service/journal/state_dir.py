"""The directory that holds a server's state: whose it is, and of which life of the host.

    DIR/lock           held by the server that owns the directory; names it
    DIR/identity.json  boot id, durability, and the epoch that counts
    DIR/EPOCH/         the journal of that epoch

Rules:
- One process owns the directory, by a lock that ends with it. Reading needs no lock.
- Blocks die with the host, and so does a journal that did not promise to outlive it: under another
  boot id a new epoch begins, empty, with an epoch greater than any before.
- A new identity is written whole and before anything of the old epoch is removed, so that a crash
  leaves either the one or the other.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal import files
from kvblock_service.journal.interface import JournalDamaged, JournalError

FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateDirTaken(Exception):
    """Another process owns the directory; the text names it."""


class Identity(NamedTuple):
    """Which life of the host a journal belongs to, and what it promised to outlive."""

    boot_id: str
    server_epoch: int
    durability: str


class Opened(NamedTuple):
    """A directory that was taken: its identity, and the boot id of the one it replaced, if any."""

    identity: Identity
    previous: Identity | None


def boot_id() -> str:
    """What is the same until the host is rebooted.

    On Linux that is the kernel's boot_id, on macOS kern.bootsessionuuid.

    Raises:
        JournalError: this system has nothing of the kind.

    """
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    try:
        return _BOOT_ID.read_text().strip()
    except OSError as error:
        raise JournalError(
            f"{_BOOT_ID} cannot be read ({error.strerror}), so nobody can tell whether this host"
            " was rebooted and its blocks are gone; --ephemeral keeps no state"
        ) from error


class StateDir:
    """A directory that this process owns until `release`."""

    def __init__(self, path: Path, owner: str = "") -> None:
        """Take a directory, making it if need be; `owner` says more about this process.

        Raises:
            StateDirTaken: another process has it.
            JournalError: it cannot be made or written to.

        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            self._take(owner)
        except BaseException:
            os.close(self._lock)
            raise

    def _take(self, owner: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateDirTaken(
                f"{self.path} is the state directory of {holder(self.path)}; stop that server, or"
                " give this one a --state-dir of its own"
            ) from None
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = json.dumps({"pid": os.getpid(), "since": since, "owner": owner}).encode()
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, content, 0)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def open(self, durability: str) -> Opened:
        """The identity that counts from now on, a new one after a reboot of the host.

        Raises:
            JournalDamaged: the identity cannot be read.
            JournalError: it cannot be written.

        """
        now = boot_id()
        found = read_identity(self.path)
        kept = found is not None and (found.boot_id == now or found.durability == "host")
        epoch = time.time_ns() // 1_000_000
        if found is not None:
            epoch = found.server_epoch if kept else max(epoch, found.server_epoch + 1)
        identity = Identity(now, epoch, durability)
        try:
            self.journal_path(epoch).mkdir(mode=0o700, exist_ok=True)
            if durability == "host" and (found is None or found.durability != durability):
                _sync_all(self.journal_path(epoch))
            if identity != found:
                text = json.dumps({"format": FORMAT, **identity._asdict()})
                files.write_whole(self.path / "identity.json", text.encode(), synced=True)
            self._remove_all_but(epoch)
        except OSError as error:
            raise _unusable(self.path, error) from error
        return Opened(identity, None if kept else found)

    def current(self) -> Identity:
        """The identity of a directory in which a server has run.

        Raises:
            JournalDamaged: the identity cannot be read.
            JournalError: it has none.

        """
        found = read_identity(self.path)
        if found is None:
            raise JournalError(f"{self.path} is no state directory: it has no identity.json")
        return found

    def journal_path(self, server_epoch: int) -> Path:
        """Where the journal of an epoch is."""
        return self.path / str(server_epoch)

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def _remove_all_but(self, epoch: int) -> None:
        for path in self.path.iterdir():
            if path.name.isdecimal() and path.name != str(epoch):
                shutil.rmtree(path)


def holder(path: Path) -> str:
    """Who has a directory, in words."""
    try:
        found = json.loads((path / "lock").read_text())
        words = f"process {found['pid']}, which has it since {found['since']}"
        return f"{words} ({found['owner']})" if found["owner"] else words
    except (OSError, ValueError, KeyError, TypeError):
        return "another process, which has not said its name yet"


def read_identity(path: Path) -> Identity | None:
    """The identity of a directory; None when it has none.

    Raises:
        JournalDamaged: there is one, but it cannot be read.

    """
    file = path / "identity.json"
    try:
        found = json.loads(file.read_bytes())
        if found["format"] != FORMAT:
            raise JournalDamaged(
                f"{file} has format {found['format']}; this program reads format {FORMAT}"
            )
        return Identity(str(found["boot_id"]), int(found["server_epoch"]), str(found["durability"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JournalDamaged(f"{file} cannot be read: {error}") from error


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the state directory {path} cannot be used: {error.strerror}"
        f" ({error.filename or path}); --state-dir names another one, --ephemeral keeps no state"
    )


def _sync_all(directory: Path) -> None:
    """What was written without this promise survives the host from now on, too."""
    for path in directory.iterdir():
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    files.sync_directory(directory)
    files.sync_directory(directory.parent)
