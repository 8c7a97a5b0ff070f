"""The directory that holds a server's state: whose it is, and of which life of the host.

    DIR/lock           held by the server that owns the directory; names it
    DIR/identity.json  boot id, durability, the epoch that counts, and those that are to be removed
    DIR/EPOCH/         the journal of that epoch

Rules:
- One process owns the directory, by a lock that ends with it. Reading needs no lock.
- Blocks die with the host, and so does a journal that did not promise to outlive it: under another
  boot id a new epoch begins, empty, with an epoch greater than any before.
- A new identity is written whole and before anything of the old epoch is removed, so that a crash
  leaves either the one or the other. It names the old epoch until that is removed.
- Nothing else is removed: what an identity does not name is somebody else's. A journal without an
  identity is neither taken over, since nobody knows of which boot it is, nor begun anew beside.
- What is to outlive the host has names that do: with that promise all directories above are synced.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
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
    """Which life of the host a journal belongs to, and what it promised to outlive.

    `former`: epochs whose journals do not count any more, and are to be removed.
    """

    boot_id: str
    server_epoch: int
    durability: str
    former: tuple[int, ...] = ()


class Opened(NamedTuple):
    """A directory that was taken.

    `identity` is the one that counts, `previous` the one that it replaced, if any. `was_synced`:
    what is there was to outlive the host. `removed`: the journals of former epochs, gone now.
    """

    identity: Identity
    previous: Identity | None
    was_synced: bool
    removed: list[Path]


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
            JournalDamaged: the identity cannot be read, or is gone.
            JournalError: it cannot be written.

        """
        now = boot_id()
        found = read_identity(self.path)
        was_synced = found is not None and found.durability == "host"
        kept = found is not None and (found.boot_id == now or was_synced)
        identity = Identity(now, time.time_ns() // 1_000_000, durability)
        if found is None:
            self._refuse_nameless()
        elif kept:
            identity = identity._replace(server_epoch=found.server_epoch, former=found.former)
        else:
            epoch = max(identity.server_epoch, found.server_epoch + 1)
            former = (*found.former, found.server_epoch)
            identity = identity._replace(server_epoch=epoch, former=former)
        try:
            journal = self.journal_path(identity.server_epoch)
            journal.mkdir(mode=0o700, exist_ok=True)
            if durability == "host" and not was_synced:
                _sync_all(journal)
            if identity != found:
                self._write(identity)
            removed = self._remove(identity.former)
            if identity.former:
                identity = identity._replace(former=())
                self._write(identity)
        except OSError as error:
            raise _unusable(self.path, error) from error
        return Opened(identity, None if kept else found, was_synced, removed)

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

    def _write(self, identity: Identity) -> None:
        text = json.dumps({"format": FORMAT, **identity._asdict()})
        files.write_whole(self.path / "identity.json", text.encode(), synced=True)

    def _remove(self, epochs: Sequence[int]) -> list[Path]:
        paths = [path for path in map(self.journal_path, epochs) if path.exists()]
        for path in paths:
            shutil.rmtree(path)
        return paths

    def _refuse_nameless(self) -> None:
        try:
            journals = sorted(str(path) for path in self.path.iterdir() if _is_journal(path))
        except OSError as error:
            raise _unusable(self.path, error) from error
        if journals:
            raise JournalDamaged(
                f"{self.path} has no identity.json, so nobody can tell whether the blocks in"
                f" {', '.join(journals)} are still there. Restore that file; or, to begin with"
                " empty pools, move these directories away or remove them"
            )


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
        former = tuple(int(epoch) for epoch in found.get("former", ()))
        return Identity(
            str(found["boot_id"]), int(found["server_epoch"]), str(found["durability"]), former
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalDamaged(f"{file} cannot be read: {error}") from error


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the state directory {path} cannot be used: {error.strerror}"
        f" ({error.filename or path}); --state-dir names another one, --ephemeral keeps no state"
    )


def _is_journal(path: Path) -> bool:
    """Whether a directory looks like the journal of an epoch."""
    if not (path.name.isdecimal() and path.is_dir()):
        return False
    try:
        return bool(files.segments(path) or files.snapshots(path))
    except JournalError:
        # What this process may not even list is not of its making.
        return False


def _sync_all(directory: Path) -> None:
    """What was written without this promise survives the host from now on, too."""
    for path in directory.iterdir():
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    files.sync_directory(directory)
    _sync_names(directory)


def _sync_names(path: Path) -> None:
    """Have the name of a directory, and of each above it, survive the host.

    Which of them was made just now is not known: an earlier start may have died before it came
    here. None was made beyond the file system, nor in a place that may not be looked into.
    """
    path = path.resolve()
    device = path.stat().st_dev
    for parent in path.parents:
        if parent.stat().st_dev != device:
            return
        with suppress(PermissionError):
            files.sync_directory(parent)
