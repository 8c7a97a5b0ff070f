"""Changes to the state of a server that is not running, for an operator."""

from pathlib import Path

from kvblock_service.core.commands import DeletePool
from kvblock_service.core.pool import Bounds
from kvblock_service.journal import codec
from kvblock_service.journal.damage import naming_the_remedy
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.open import journal_of, refuse_lost_records
from kvblock_service.journal.recovery import recover
from kvblock_service.journal.state_dir import (
    Opened,
    StateDir,
    host_died,
    journal_directory,
    present_identity,
)


def discard_pool(path: Path, name: str) -> None:
    """Drop a pool and all that is held in it from the journal of a server that is not running.

    Raises:
        StateDirInUse: it is running.
        JournalDamaged: the journal cannot be read.
        JournalError: the pool is not there, or the journal cannot be written to.

    """
    with naming_the_remedy(path):
        present_identity(path)
    state_dir = StateDir(path, "kvblock journal discard")
    try:
        with naming_the_remedy(path):
            identity = present_identity(path)
            opened = Opened(identity, identity, True, host_died(identity))
            journal_directory(path, identity)
            journal = journal_of(state_dir, opened)
        try:
            with naming_the_remedy(path):
                found = recover(journal, Bounds(1, 1, 2**20))
                refuse_lost_records(opened, journal)
            if name not in [entry.pool.geometry.name for entry in found.state.pools]:
                raise JournalError(f"{path} has no pool {name}")
            journal.begin()
            journal.append(journal.position, [codec.encode(DeletePool(name))])
        finally:
            journal.close()
    finally:
        state_dir.release()


def set_aside(path: Path) -> list[Path]:
    """Set aside what a server has left that is not running; the next one begins with empty pools.

    Answers where everything is now.

    Raises:
        StateDirInUse: it is running.
        JournalError: it cannot be done, or there is nothing.

    """
    if not path.is_dir():
        raise JournalError(f"{path} is no state directory")
    state_dir = StateDir(path, "kvblock journal set-aside")
    try:
        moved = state_dir.set_aside()
    finally:
        state_dir.release()
    if not moved:
        raise JournalError(f"{path} has nothing to set aside")
    return moved
