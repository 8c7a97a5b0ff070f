"""A state directory as a server leaves it, and what a start says of it."""

from pathlib import Path

import pytest

from kvblock_service.core.commands import Allocate, Stamp
from kvblock_service.core.pool import Geometry
from kvblock_service.journal import codec, files, snapshot
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.journal.records import CommandRecord
from kvblock_service.journal.snapshot import State
from tests.unit.journal.kept import BOUNDS, GEOMETRY, write

NOW = Stamp(1, 2, "")


HELD = 6


POOLS = (Geometry("main", 24, 16, 3), Geometry("tiny", 1, 8, 0))


REFUSED = (JournalDamaged, JournalError)


def opened(path: Path, durability: str = "process") -> OpenedJournal:
    return open_journal(path, [GEOMETRY], BOUNDS, durability=durability)


def closed(found: OpenedJournal) -> None:
    found.journal.close()
    found.state_dir.release()


def grant(found: OpenedJournal, sequence: int, engine: str = "a") -> None:
    command = Allocate(engine, 0, "", sequence, 1)
    found.pools[0].pool.apply(command, NOW)
    write(found.journal, [codec.encode(CommandRecord("main", NOW, command))])


def snap(found: OpenedJournal) -> None:
    state = State(found.journal.server_epoch, found.registry.last_epoch, found.pools)
    found.journal.put_snapshot(found.journal.position, snapshot.encode(state))


def journal_of(path: Path) -> Path:
    (directory,) = (one for one in path.iterdir() if one.is_dir())
    return directory


def refused(path: Path, names: str = "") -> str:
    """What a start says that has to be refused, and that `kvblock journal set-aside` helps."""
    with pytest.raises(REFUSED) as caught:
        closed(opened(path))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert names in text, text
    return text


def newest_segment(path: Path) -> Path:
    filled = [one for _, one in files.segments(journal_of(path)) if one.stat().st_size]
    return filled[-1]
