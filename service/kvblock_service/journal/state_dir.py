"""The directory that holds a server's state: whose it is, and of which life of the host.

    DIR/lock            names the server that owns the directory
    DIR/identity.json   boot id, durability, the epoch that counts, and those to be set aside
    DIR/EPOCH/          the journal of that epoch
    DIR/NAME.former-MS  what does not count any more, see `former`

Rules:
- One process owns the directory, see `lock`. Reading needs no lock.
- Blocks die with the host, and so does a journal that did not promise to outlive it: under another
  boot id a new epoch begins, empty, with an epoch greater than any before.
- A new identity is written whole, once the journal that it names can be served from, and before
  anything of the old epoch is set aside, so that a crash leaves either the one or the other. It
  names the old epoch until that is set aside.
- An identity whose journal is not there is damage, as a journal without an identity is: it is
  neither taken over, since its boot is unknown, nor begun anew beside.
- What is to outlive the host has names that do: with that promise all directories above are synced.
"""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal import end_file, files, former, lock
from kvblock_service.journal.identity import NAME, StateIdentity, read_identity, write_identity
from kvblock_service.journal.interface import JournalDamaged, JournalError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StateDirInUse(Exception):
    """Another process owns the directory; the text names it."""


@contextmanager
def naming_the_remedy(path: Path) -> Iterator[None]:
    """Have damage told with what an operator can do about it."""
    try:
        yield
    except JournalDamaged as error:
        raise JournalDamaged(
            f"{error}. Restore {path} as it was; or, to begin with empty pools, stop the engines"
            f" and run `kvblock journal set-aside {path}`"
        ) from error


class Opened(NamedTuple):
    """What is to be served from a directory.

    `identity` is the one that counts once it is put in force, `found` the one that is in force;
    None: there is none. `goes_on`: the journal is that of `found`. `host_died`: the host went down
    since it was written.
    """

    identity: StateIdentity
    found: StateIdentity | None
    goes_on: bool
    host_died: bool

    @property
    def is_marked(self) -> bool:
        """Whether the journal has to have an `end`."""
        return self.goes_on and self.identity.format > 1


def boot_id() -> str:
    """What is the same until the host is rebooted; raises JournalError on a system without it.

    On Linux that is the kernel's boot_id, on macOS kern.bootsessionuuid.
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
    """A directory that this process owns until `release`.

    Raises:
        JournalError: from every method, when something cannot be made, written or set aside.

    """

    def __init__(self, path: Path, owner: str = "") -> None:
        """Take a directory, making it if need be; `owner` says more about this process.

        Raises StateDirInUse while another process has it.
        """
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock.Lock(path, owner)
        except lock.LockHeld:
            raise StateDirInUse(
                f"{path} is the state directory of {lock.holder(path)}; stop that server, or give"
                " this one a --state-dir of its own"
            ) from None
        except OSError as error:
            raise _unusable(path, error) from error

    def open(self, durability: str) -> Opened:
        """What is to be served from now on, and where: a new epoch after a reboot of the host.

        Raises JournalDamaged when the identity or its journal cannot be read, or is gone.
        """
        now = boot_id()
        found = read_identity(self.path)
        if found is None:
            self._refuse_nameless()
        elif found.boot_id == now or found.durability == "host":
            journal_directory(self.path, found)
            identity = found._replace(boot_id=now, durability=durability)
            return Opened(identity, found, True, found.boot_id != now)
        epoch = max(time.time_ns() // 1_000_000, former.greatest_epoch(self.path) + 1)
        identity = StateIdentity(now, epoch, durability)
        if found is not None:
            epoch = max(epoch, found.server_epoch + 1)
            past = (*found.former, found.server_epoch)
            identity = identity._replace(server_epoch=epoch, former=past)
        try:
            (self.path / str(epoch)).mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(self.path, error) from error
        return Opened(identity, found, False, False)

    def put_in_force(self, opened: Opened) -> list[Path]:
        """Have the identity count from now on; answers what was set aside."""
        identity, found = opened.identity, opened.found
        try:
            if identity.durability == "host" and (found is None or found.durability != "host"):
                _sync_all(self.path / str(identity.server_epoch))
            if identity != found or found.format == 1:
                write_identity(self.path, identity)
            paths = [former.set_aside(self.path / str(epoch)) for epoch in identity.former]
            if identity.former:
                write_identity(self.path, identity._replace(former=()))
        except OSError as error:
            raise _unusable(self.path, error) from error
        return [path for path in paths if path is not None]

    def set_aside(self) -> list[Path]:
        """Set aside everything that is here, so that a server begins with empty pools."""
        try:
            paths = {path for path in self.path.iterdir() if _is_journal(path)}
            with suppress(JournalDamaged, JournalError):
                paths.add(self.path / str(present_identity(self.path).server_epoch))
            moved = [former.set_aside(path) for path in (self.path / NAME, *sorted(paths))]
        except OSError as error:
            raise _unusable(self.path, error) from error
        return [path for path in moved if path is not None]

    def release(self) -> None:
        """Let another process have it."""
        self._lock.release()

    def _refuse_nameless(self) -> None:
        try:
            journals = sorted(str(path) for path in self.path.iterdir() if _is_journal(path))
        except OSError as error:
            raise _unusable(self.path, error) from error
        if journals:
            raise JournalDamaged(
                f"{self.path} has no identity.json, so nobody can tell whether the blocks in"
                f" {', '.join(journals)} are still there"
            )


def journal_directory(path: Path, identity: StateIdentity) -> Path:
    """Where the journal of an identity is; raises JournalDamaged unless a directory is there."""
    directory = path / str(identity.server_epoch)
    try:
        mode = directory.lstat().st_mode
    except FileNotFoundError:
        raise JournalDamaged(
            f"{directory} is missing, the journal that {path / 'identity.json'} names"
        ) from None
    except OSError as error:
        raise JournalDamaged(f"{directory} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(mode):
        raise JournalDamaged(f"{directory} is no directory, and is to have a journal")
    return directory


def present_identity(path: Path) -> StateIdentity:
    """The identity of a directory in which a server has run.

    Raises:
        JournalDamaged: the identity cannot be read.
        JournalError: it has none.

    """
    found = read_identity(path)
    if found is None:
        raise JournalError(f"{path} is no state directory: it has no identity.json")
    return found


def host_died(identity: StateIdentity) -> bool:
    """Whether a journal that was to outlive its host is of an earlier boot."""
    if identity.durability != "host":
        return False
    with suppress(JournalError):
        return boot_id() != identity.boot_id
    return False


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the state directory {path} cannot be used: {error.strerror}"
        f" ({error.filename or path}); --state-dir names another one, --ephemeral keeps no state"
    )


def _is_journal(path: Path) -> bool:
    """Whether that looks like the journal of an epoch."""
    if not path.name.isdecimal() or not stat.S_ISDIR(path.lstat().st_mode):
        return False
    try:
        # A start that died before it had an identity leaves an end at position 0.
        return bool(
            files.segments(path)
            or files.of_other_formats(path)
            or files.snapshots(path)
            or end_file.is_moved(path)
        )
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
