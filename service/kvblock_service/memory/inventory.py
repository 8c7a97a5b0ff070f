"""The memory files that are in a directory, and which of them nobody needs any more.

Rules:
- A living server's file is known by the lock on its owner file, whoever looks, also from another
  container.
- A file of a server that is stopped is needed as long as its state directory has the epoch that the
  file was made in: its engines go on, and it is used again. It is an orphan once another epoch
  counts there. A server without a journal leaves orphans alone.
- What cannot be found out, as when the state directory is that of a container, is unknown: it is
  removed only when it is named.
- Nothing of a living server is removed.
"""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from kvblock_service.journal.identity import read_identity
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.memory.memory_file import MemoryFileError
from kvblock_service.memory.owner_file import (
    SUFFIX,
    NoOwner,
    Owner,
    OwnerFile,
    OwnerLocked,
    is_locked,
    memory_of,
    owner_path,
    read_owner,
)
from kvblock_service.memory.server_files import PREFIX, inode_of


class FileState(Enum):
    """What becomes of a memory file."""

    IN_USE = "in use"
    """A living server has it."""
    STOPPED = "stopped"
    """Its server is stopped and will use it again."""
    ORPHAN = "orphan"
    """Nobody will use it again."""
    UNKNOWN = "unknown"
    """It cannot be found out; `why` says what is in the way."""


class MemoryFile(NamedTuple):
    """One memory file; `file_bytes` is its size, and `state_dir` empty where there is none."""

    path: str
    pool: str
    file_bytes: int
    state: FileState
    state_dir: str
    why: str


def memory_files(directory: Path) -> Iterator[MemoryFile]:
    """What is in a directory, in the order of the names; raises MemoryFileError."""
    for path in _memory_paths(directory):
        yield _looked_at(path)


def remove(path: Path) -> None:
    """Remove a memory file and its owner file.

    Raises MemoryFileError: a living server has it, it is none, or it cannot be removed.
    """
    beside = owner_path(path)
    if not path.name.startswith(PREFIX) or path.name.endswith(SUFFIX):
        raise MemoryFileError(f"{path} is no memory file of kvblock; its name begins with {PREFIX}")
    if not _is_there(path) and not _is_there(beside):
        raise MemoryFileError(f"{path} is not there")
    try:
        owner_file = OwnerFile(beside)
        path.unlink(missing_ok=True)
        owner_file.remove()
    except OwnerLocked:
        raise MemoryFileError(f"{path} is in use by a server that is running") from None
    except OSError as error:
        raise MemoryFileError(f"{path} cannot be removed: {error.strerror}") from error


def _memory_paths(directory: Path) -> list[Path]:
    try:
        found = [path for path in directory.iterdir() if path.name.startswith(PREFIX)]
    except OSError as error:
        raise MemoryFileError(f"{directory} cannot be read: {error.strerror}") from error
    return sorted({memory_of(path) for path in found})


def _looked_at(path: Path) -> MemoryFile:
    owner, state, why = _judged(owner_path(path))
    try:
        size = path.lstat().st_size
    except OSError:
        size = 0
    pool, state_dir = (owner.pool, owner.state_dir) if owner else ("", "")
    return MemoryFile(str(path), pool, size, state, state_dir, why)


def _judged(path: Path) -> tuple[Owner | None, FileState, str]:
    try:
        locked = is_locked(path)
        owner = read_owner(path)
    except FileNotFoundError:
        return None, FileState.UNKNOWN, f"{path.name} is missing"
    except (OSError, NoOwner) as error:
        return None, FileState.UNKNOWN, f"{path.name}: {getattr(error, 'strerror', None) or error}"
    if locked:
        return owner, FileState.IN_USE, ""
    if owner is None:
        return owner, FileState.ORPHAN, "its server died while it made it"
    if not owner.state_dir:
        return owner, FileState.ORPHAN, "its server had no journal"
    return (owner, *_judged_by_state(owner))


def _judged_by_state(owner: Owner) -> tuple[FileState, str]:
    state_dir = Path(owner.state_dir)
    try:
        if inode_of(state_dir) != owner.state_dir_inode:
            return FileState.UNKNOWN, "another directory is where its state directory was"
        identity = read_identity(state_dir)
    except OSError as error:
        return FileState.UNKNOWN, f"its state directory cannot be read: {error.strerror}"
    except (JournalDamaged, JournalError) as error:
        return FileState.UNKNOWN, str(error)
    if identity is not None and identity.server_epoch == owner.server_epoch:
        return FileState.STOPPED, ""
    return FileState.ORPHAN, "its state directory has begun anew"


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True
