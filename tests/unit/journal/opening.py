"""A state directory that is opened, used and closed, all in this process."""

from pathlib import Path

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Free,
    Stamp,
)
from kvblock_service.core.pool import Geometry
from kvblock_service.journal import codec
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.journal.records import CommandRecord
from tests.unit.journal.kept import BOUNDS, GEOMETRY, change_identity, write

NOW = Stamp(1, 2, "")


def opened(path: Path, *pools: Geometry, durability: str = "process") -> OpenedJournal:
    return open_journal(path, pools or (GEOMETRY,), BOUNDS, durability=durability, now_ms=500)


def closed(found: OpenedJournal) -> None:
    found.journal.close()
    assert found.journal.trouble == []
    found.state_dir.release()


def grant(found: OpenedJournal, command: Allocate | Free | Attach) -> object:
    entry = found.pools[0]
    outcome, _ = entry.pool.apply(command, NOW)
    record = CommandRecord(entry.pool.geometry.name, NOW, command)
    write(found.journal, [codec.encode(record)])
    return outcome


def rebooted(path: Path) -> None:
    change_identity(path, boot_id="another-boot")


def events(found: OpenedJournal) -> list[str]:
    return [fact.event for fact in found.events]
