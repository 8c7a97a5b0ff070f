"""What earlier versions and earlier boots have left in a state directory, and setting it aside."""

import json
import time
from pathlib import Path

import pytest

from kvblock_service.journal.inspect import described, read_contents
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import OpenedJournal, discard_pool, open_journal, set_aside
from kvblock_service.journal.state_dir import StateDirInUse
from tests.fixtures.unpack import NAMES, extract, unpack
from tests.unit.journal.directories import (
    POOLS,
    closed,
    grant,
    journal_of,
    newest_segment,
    opened,
    refused,
)
from tests.unit.journal.kept import BOUNDS, GEOMETRY, change_identity


@pytest.mark.parametrize("name", NAMES)
def test_what_earlier_versions_wrote_is_taken_up_and_goes_on_in_the_new_form(
    tmp_path: Path, name: str
) -> None:
    unpack(name, tmp_path)
    for _ in range(2):
        found = open_journal(tmp_path, POOLS, BOUNDS)
        held = sum(entry.pool.blocks.held for entry in found.pools)
        grant(found, 1, engine="late")
        closed(found)
    assert held > 0
    assert json.loads((tmp_path / "identity.json").read_text())["format"] == 2
    assert newest_segment(tmp_path).read_bytes().startswith(b"KVBH")
    (journal_of(tmp_path) / "end").unlink()
    with pytest.raises(JournalDamaged, match="end is missing, which says where the journal ended"):
        open_journal(tmp_path, POOLS, BOUNDS)


def test_an_old_journal_without_a_record_is_refused(tmp_path: Path) -> None:
    unpack("append-process", tmp_path)
    for path in journal_of(tmp_path).iterdir():
        path.unlink()
    assert "is to have a journal, and has no record" in refused(tmp_path)


def test_segments_in_sqlite_are_refused_and_stay(tmp_path: Path) -> None:
    extract("sqlite-process", tmp_path)
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    before = [one for one in before if one[0].name != "lock"]

    def unchanged() -> bool:
        return all(path.read_bytes() == data for path, data in before)

    segment = journal_of(tmp_path) / "journal-0000000001.db"
    for attempt in (
        lambda: open_journal(tmp_path, POOLS, BOUNDS),
        lambda: read_contents(tmp_path),
        lambda: list(described(tmp_path, 0)),
        lambda: discard_pool(tmp_path, "main"),
    ):
        with pytest.raises(JournalError) as caught:
            attempt()
        told = str(caught.value)
        assert told.startswith(
            f"{segment} is a segment in SQLite, which this version does not read"
        )
        assert "Start the version that wrote it with journal_format=append" in told
        assert told.endswith(f"run `kvblock journal set-aside {tmp_path}`")
        assert unchanged()
    # Without its identity it is a journal all the same, and nothing begins empty beside it.
    identity = (tmp_path / "identity.json").read_bytes()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(JournalDamaged, match=r"has no identity\.json"):
        open_journal(tmp_path, POOLS, BOUNDS)
    (tmp_path / "identity.json").write_bytes(identity)
    assert unchanged()
    assert len(set_aside(tmp_path)) == 2
    closed(open_journal(tmp_path, POOLS, BOUNDS))


def former(path: Path) -> list[Path]:
    return sorted(path.glob("*.former-*"))


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_a_journal_of_before_a_reboot_stays_for_a_while(tmp_path: Path, seconds: float) -> None:
    def restarted() -> OpenedJournal:
        return open_journal(tmp_path, [GEOMETRY], BOUNDS, former_seconds=seconds)

    found = restarted()
    grant(found, 1)
    before = found.journal.directory
    closed(found)
    change_identity(tmp_path, boot_id="another-boot")
    found = restarted()
    assert found.pools[0].pool.blocks.held == 0
    assert len(former(tmp_path)) == (1 if seconds else 0)
    closed(found)
    if not seconds:
        return
    (aside,) = former(tmp_path)
    assert aside.name.startswith(f"{before.name}.former-")
    # As if it had been set aside so long ago.
    old = aside.with_name(f"{before.name}.former-{time.time_ns() // 1_000_000 - 999_000}")
    aside.rename(old)
    closed(restarted())
    assert former(tmp_path) == [old]
    older = old.with_name(f"{before.name}.former-{time.time_ns() // 1_000_000 - 1_001_000}")
    old.rename(older)
    found = restarted()
    assert former(tmp_path) == []
    assert found.events[-1].fields == {"path": str(older)}
    closed(found)


def test_a_damaged_state_is_set_aside_and_back(tmp_path: Path) -> None:
    found = opened(tmp_path)
    grant(found, 1)
    epoch = found.journal.server_epoch
    with pytest.raises(StateDirInUse):
        set_aside(tmp_path)
    closed(found)
    whole = (tmp_path / "identity.json").read_bytes()
    (tmp_path / "identity.json").write_bytes(whole[:-1])
    refused(tmp_path)
    moved = set_aside(tmp_path)
    assert former(tmp_path) == sorted(moved)
    found = opened(tmp_path)
    assert found.pools[0].pool.blocks.held == 0
    assert found.journal.server_epoch > epoch
    closed(found)
    set_aside(tmp_path)
    for path in moved:
        path.rename(path.with_name(path.name.partition(".former-")[0]))
    (tmp_path / "identity.json").write_bytes(whole)
    found = opened(tmp_path)
    assert (found.journal.server_epoch, found.pools[0].pool.blocks.held) == (epoch, 1)
    closed(found)
