"""The memory files of one server.

Rules:
- A file is named after the server's epoch, its state directory and the pool, so that a restart
  finds it again, and no two servers mean the same file. Its owner file is locked while the server
  lives: should two mean it all the same, the second is refused.
- With a journal the files stay when the server stops, since its engines go on; without, they end
  with it.
- What a journal has no pool for any more, as after a pool was deleted right before a crash, or
  after the host went down, is removed at the next start, before anything is made.
"""

import hashlib
import os
import secrets
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from kvblock_service.memory import memory_file
from kvblock_service.memory.memory_file import FileAccess, MemoryFileError
from kvblock_service.memory.owner_file import (
    SUFFIX,
    NoOwner,
    Owner,
    OwnerFile,
    OwnerLocked,
    memory_of,
    owner_path,
    read_owner,
)

PREFIX = "kvblock-"
SCHEME = "shm"


class FileOwner(NamedTuple):
    """A server as the owner of files; `mark` tells it from others of the same epoch."""

    server_epoch: int
    state_dir: str
    state_dir_inode: str
    mark: str

    @property
    def is_ephemeral(self) -> bool:
        """Whether the server has no journal: its files end with it."""
        return not self.state_dir


def file_owner(server_epoch: int, state_dir: Path | None) -> FileOwner:
    """A server with this state directory, None: without a journal."""
    if state_dir is None:
        return FileOwner(server_epoch, "", "", secrets.token_hex(4))
    path = state_dir.resolve()
    mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return FileOwner(server_epoch, str(path), inode_of(path), mark)


def inode_of(directory: Path) -> str:
    """What tells a directory from others that had or have its path, here or in a container."""
    found = directory.stat()
    return f"{found.st_dev}:{found.st_ino}"


class Begun(NamedTuple):
    """The files that a server began with: made, found, and removed since no pool has them."""

    made: list[Path]
    found: list[Path]
    removed: list[Path]


class ServerFiles:
    """The files of a server in a directory, one for each pool that has one.

    Its methods may take long, as memory that is allocated or freed does; they are called from one
    thread at a time.
    """

    def __init__(self, directory: Path, access: FileAccess, owner: FileOwner) -> None:
        self.directory = directory
        self._access = access
        self._owner = owner
        self._held: dict[str, OwnerFile] = {}

    def path(self, pool: str) -> Path:
        """Where the memory of a pool is."""
        owner = self._owner
        return self.directory / f"{PREFIX}{owner.server_epoch}-{owner.mark}-{pool}"

    def uri(self, pool: str) -> str:
        """The memory of a pool as engines get it."""
        return f"{SCHEME}://{quote(str(self.path(pool)))}"

    def begin(self, sizes: Mapping[str, int]) -> Begun:
        """Have the memory of these pools there, by name and size, and of no others.

        Raises:
            MemoryFileError: one of them cannot be had; what was made is removed again.

        """
        removed = self._remove_others(sizes)
        made: list[Path] = []
        found: list[Path] = []
        try:
            for pool, size in sizes.items():
                (made if self.take(pool, size) else found).append(self.path(pool))
        except BaseException:
            for pool in list(self._held):
                if self.path(pool) in made:
                    self.drop(pool)
            self.close()
            raise
        return Begun(made, found, removed)

    def take(self, pool: str, size: int) -> bool:
        """Have the memory of a pool there, `size` bytes; False: it was there before.

        Raises:
            MemoryFileError: it cannot be had; nothing was changed.

        """
        path = self.path(pool)
        owner_file = self._lock(path)
        try:
            is_new = self._make_or_reuse(pool, size, path, owner_file)
        except BaseException:
            owner_file.close()
            raise
        self._held[pool] = owner_file
        return is_new

    def drop(self, pool: str) -> None:
        """Remove the memory of a pool, if it has one; what engines have mapped stays with them."""
        owner_file = self._held.pop(pool, None)
        if owner_file is not None:
            self.path(pool).unlink(missing_ok=True)
            owner_file.remove()

    def close(self) -> None:
        """Let go of all files; those of a server without a journal are removed."""
        for pool in list(self._held):
            if self._owner.is_ephemeral:
                self.drop(pool)
            else:
                self._held.pop(pool).close()

    def _lock(self, path: Path) -> OwnerFile:
        try:
            owner_file = OwnerFile(owner_path(path))
        except OwnerLocked:
            raise MemoryFileError(
                f"{path} is the memory of another server that is running, which has the state"
                " directory of this one; give this one a --state-dir of its own"
            ) from None
        except OSError as error:
            raise MemoryFileError(
                f"{owner_path(path)} cannot be used: {error.strerror}; memory_dir names the place"
            ) from error
        if owner_file.user() != os.geteuid():
            user = owner_file.user()
            owner_file.close()
            raise MemoryFileError(
                f"{owner_path(path)} belongs to user {user}, not to user {os.geteuid()}; remove it"
            )
        return owner_file

    def _make_or_reuse(self, pool: str, size: int, path: Path, owner_file: OwnerFile) -> bool:
        server = self._owner
        try:
            found = owner_file.read()
        except NoOwner as error:
            raise MemoryFileError(f"{owner_file.path}: {error}; remove it and {path}") from None
        if found is None:
            memory_file.remove_unfinished(path, self._access)
        else:
            known = (found.pool, found.server_epoch, found.state_dir)
            if known != (pool, server.server_epoch, server.state_dir):
                raise MemoryFileError(
                    f"{path} is not of this server: {owner_file.path} names pool {found.pool} of"
                    f" {found.state_dir or 'a server without a journal'}; remove both"
                )
            try:
                memory_file.reuse(path, size, found.inode, self._access)
            except FileNotFoundError:
                raise MemoryFileError(
                    f"{path} is gone, and engines may have it mapped still. Stop them and run"
                    f" kvblock memory clean {path}"
                ) from None
            return False
        try:
            inode = memory_file.make(path, size, self._access)
            owner_file.write(
                Owner(
                    pool, size, inode, server.server_epoch, server.state_dir, server.state_dir_inode
                )
            )
        except OSError as error:
            path.unlink(missing_ok=True)
            raise MemoryFileError(f"{owner_file.path}: {error.strerror}") from error
        except MemoryFileError:
            owner_file.path.unlink(missing_ok=True)
            raise
        return True

    def _remove_others(self, pools: Container[str]) -> list[Path]:
        """Remove files of this state directory that are of other pools, or of a former epoch."""
        owner = self._owner
        if owner.is_ephemeral:
            return []
        paths = sorted(self.directory.glob(f"{PREFIX}*-{owner.mark}-*{SUFFIX}"))
        return [memory_of(path) for path in paths if self._removed(path, pools)]

    def _removed(self, path: Path, pools: Container[str]) -> bool:
        server = self._owner
        try:
            found = read_owner(path)
            place = (server.state_dir, server.state_dir_inode)
            if found is None or (found.state_dir, found.state_dir_inode) != place:
                return False
            if found.server_epoch == server.server_epoch and found.pool in pools:
                return False
            owner_file = OwnerFile(path)
            memory_of(path).unlink(missing_ok=True)
            owner_file.remove()
        except (OSError, NoOwner, OwnerLocked):
            # Somebody else's, or in use: not this server's to remove.
            return False
        return True
