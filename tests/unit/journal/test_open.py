"""A state directory: whose it is, of which boot, and with which pools."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    CreatePool,
    Free,
    Granted,
    Stamp,
)
from kvblock_service.core.pool import Geometry
from kvblock_service.journal import codec, files, state_dir
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import GeometryChanged, OpenedJournal, discard_pool, open_journal
from kvblock_service.journal.records import CommandRecord
from kvblock_service.journal.state_dir import StateDir, StateDirInUse
from tests.unit.journal.kept import BOUNDS, GEOMETRY, change_identity, unacknowledge, write

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


def test_a_new_directory_has_the_configured_pools_empty(tmp_path: Path) -> None:
    other = GEOMETRY._replace(name="other")
    found = opened(tmp_path / "a" / "b", GEOMETRY, other)
    assert [entry.pool.geometry for entry in found.pools] == [GEOMETRY, other]
    assert {entry.pool.last_epoch for entry in found.pools} == {found.journal.server_epoch}
    assert events(found) == ["journal"]
    closed(found)


def test_a_restart_finds_blocks_leases_and_the_epoch(tmp_path: Path) -> None:
    found = opened(tmp_path)
    attached = grant(found, Attach("a", 0, "", False, 1000, 0))
    assert isinstance(attached, Attached)
    assert grant(found, Allocate("a", attached.epoch, "", 1, 3)) == Granted([0, 1, 2], 3)
    epoch = found.journal.server_epoch
    closed(found)
    found = opened(tmp_path)
    assert found.journal.server_epoch == epoch
    pool = found.pools[0].pool
    assert pool.table("a", 1) == [0, 1, 2]
    assert pool.engines["a"].deadline_ms == 1500
    assert pool.bounds == BOUNDS
    assert found.registry.last_epoch == attached.epoch
    assert found.events[-1].fields["held_blocks"] == 3
    closed(found)


def test_a_second_server_is_told_who_has_the_directory(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from kvblock_service.journal.state_dir import StateDir\n"
        "taken = StateDir(Path(sys.argv[1]), 'serving unix:/kv.sock')\n"
        "print(flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        with pytest.raises(StateDirInUse) as caught:
            opened(tmp_path)
        assert f"process {server.pid}" in str(caught.value)
        assert "(serving unix:/kv.sock)" in str(caught.value)
        assert "--state-dir" in str(caught.value)
        server.send_signal(signal.SIGKILL)
    closed(opened(tmp_path))


def test_after_a_reboot_all_pools_are_empty_under_a_greater_epoch(tmp_path: Path) -> None:
    found = opened(tmp_path)
    grant(found, Allocate("a", 0, "", 1, 3))
    before = found.journal.server_epoch
    closed(found)
    rebooted(tmp_path)
    found = opened(tmp_path)
    assert found.journal.server_epoch > before
    assert found.pools[0].pool.blocks.held == 0
    assert found.pools[0].pool.last_epoch == found.journal.server_epoch
    assert "rebooted" in events(found)[0]
    assert found.events[0].level == "warning"
    assert found.events[0].fields["previous_boot_id"] == "another-boot"
    assert not (tmp_path / str(before)).exists()
    closed(found)


def test_a_new_epoch_is_greater_even_when_the_clock_went_back(tmp_path: Path) -> None:
    closed(opened(tmp_path))
    change_identity(tmp_path, boot_id="x", server_epoch=2**50)
    found = opened(tmp_path)
    assert found.journal.server_epoch == 2**50 + 1
    closed(found)


def test_what_was_to_outlive_the_host_does(tmp_path: Path) -> None:
    found = opened(tmp_path, durability="host")
    grant(found, Allocate("a", 0, "", 1, 3))
    before = found.journal.server_epoch
    closed(found)
    rebooted(tmp_path)
    found = opened(tmp_path, durability="host")
    assert found.journal.server_epoch == before
    assert found.pools[0].pool.blocks.held == 3
    closed(found)


def test_durability_can_be_raised_and_lowered(tmp_path: Path) -> None:
    for count, durability in enumerate(("process", "host", "process", "host")):
        found = opened(tmp_path, durability=durability)
        assert found.pools[0].pool.blocks.held == count
        grant(found, Allocate("a", 0, "", 1, 1))
        closed(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total_blocks": 40}, "total=40,block_size=16,device=0"),
        ({"block_size": 32}, "total=20,block_size=32,device=0"),
        ({"device_id": 3}, "total=20,block_size=16,device=3"),
        ({"reserved_blocks": 1}, "device=0,reserved=1,block_bytes=0,regions=1 "),
        ({"block_bytes": 512}, "device=0,reserved=0,block_bytes=512,regions=1 "),
        ({"regions": 2}, "device=0,reserved=0,block_bytes=0,regions=2 "),
        ({"layout": "NHD"}, "device=0,reserved=0,block_bytes=0,regions=1,layout='NHD' "),
    ],
)
def test_another_geometry_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    found = opened(tmp_path)
    grant(found, Allocate("a", 0, "", 1, 3))
    closed(found)
    changed = GEOMETRY._replace(**change)
    with pytest.raises(GeometryChanged) as caught:
        opened(tmp_path, changed)
    text = str(caught.value)
    configured, _, journaled = text.partition(", but ")
    assert words.strip() in configured
    assert (
        "total=20,block_size=16,device=0,reserved=0,block_bytes=0,regions=1 and 3 held" in journaled
    )
    assert f"kvblock journal export {tmp_path}" in text
    assert f"kvblock journal discard {tmp_path} --pool main" in text
    found = opened(tmp_path)
    assert found.pools[0].pool.blocks.held == 3
    before = found.pools[0].pool.last_epoch
    closed(found)
    discard_pool(tmp_path, "main")
    found = opened(tmp_path, changed)
    assert found.pools[0].pool.geometry == changed
    assert found.pools[0].pool.blocks.held == 0
    assert found.pools[0].pool.last_epoch >= before
    closed(found)


def test_a_pool_that_is_not_configured_any_more(tmp_path: Path) -> None:
    other = GEOMETRY._replace(name="other")
    found = opened(tmp_path, GEOMETRY, other)
    grant(found, Allocate("a", 0, "", 1, 3))
    closed(found)
    with pytest.raises(GeometryChanged, match="pool main is not configured any more"):
        opened(tmp_path, other)
    found = opened(tmp_path, GEOMETRY)
    assert [entry.pool.geometry for entry in found.pools] == [GEOMETRY]
    assert found.events[-1].fields == {"pool": "other"}
    closed(found)


def test_a_pool_that_was_made_at_run_time_comes_back(tmp_path: Path) -> None:
    found = opened(tmp_path)
    other = GEOMETRY._replace(name="other")
    write(found.journal, [codec.encode(CreatePool(other, 9, configured=False))])
    closed(found)
    for _ in range(2):
        found = opened(tmp_path)
        assert [entry.pool.geometry.name for entry in found.pools] == ["main", "other"]
        assert [entry.configured for entry in found.pools] == [True, False]
        closed(found)


def test_an_identity_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    closed(opened(tmp_path))
    for text in ("", "{}", '{"format": 2}', "[]"):
        (tmp_path / "identity.json").write_text(text)
        with pytest.raises(JournalDamaged, match=r"identity\.json"):
            opened(tmp_path)


def test_a_journal_without_its_identity_stops_the_start(tmp_path: Path) -> None:
    found = opened(tmp_path)
    grant(found, Allocate("a", 0, "", 1, 3))
    journal = found.journal.directory
    closed(found)
    identity = (tmp_path / "identity.json").read_bytes()
    (tmp_path / "identity.json").unlink()
    for _ in range(2):
        with pytest.raises(JournalDamaged) as caught:
            opened(tmp_path)
        assert f"{tmp_path} has no identity.json" in str(caught.value)
        assert f"blocks in {journal} are" in str(caught.value)
        assert f"Restore {tmp_path} as it was; or, to begin with empty pools" in str(caught.value)
        assert f"run `kvblock journal set-aside {tmp_path}`" in str(caught.value)
    (tmp_path / "identity.json").write_bytes(identity)
    found = opened(tmp_path)
    assert found.pools[0].pool.blocks.held == 3
    closed(found)
    (tmp_path / "identity.json").unlink()
    journal.rename(tmp_path / "aside")
    found = opened(tmp_path)
    assert found.pools[0].pool.blocks.held == 0
    closed(found)


def test_nothing_is_removed_that_the_identity_does_not_name(tmp_path: Path) -> None:
    precious = tmp_path / "2024" / "precious"
    precious.parent.mkdir()
    precious.write_text("x")
    # A start that died before it had an identity leaves this.
    (tmp_path / "1700000000000").mkdir()
    for _ in range(3):
        closed(opened(tmp_path))
        rebooted(tmp_path)
    assert precious.read_text() == "x"
    assert (tmp_path / "1700000000000").exists()


def test_a_journal_that_could_not_be_set_aside_is_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(tmp_path)
    first = found.journal.directory
    closed(found)
    rebooted(tmp_path)

    def fail(path: Path, _: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        for _ in range(2):
            with pytest.raises(JournalError, match=r"cannot be used: Input/output error"):
                opened(tmp_path)
    assert first.exists()
    found = opened(tmp_path)
    (moved,) = [fact.fields["directory"] for fact in found.events if "set aside" in fact.event]
    assert Path(str(moved)).is_dir()
    assert not first.exists()
    closed(found)
    # What comes back later under that name is somebody's.
    first.mkdir()
    closed(opened(tmp_path))
    assert first.exists()


def test_names_of_new_directories_are_to_outlive_the_host_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = set(), os.fsync

    def fsync(number: int) -> None:
        synced.add(os.fstat(number).st_ino)
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    state = tmp_path / "a" / "b"
    closed(opened(state))
    assert tmp_path.stat().st_ino not in synced
    synced.clear()
    closed(opened(state, durability="host"))
    for path in (state, *state.parents):
        assert path.stat().st_ino in synced or path.stat().st_dev != state.stat().st_dev
        if path == tmp_path:
            break
    else:
        pytest.fail("it did not come that far")


@pytest.mark.parametrize("now", ["process", "host"])
@pytest.mark.parametrize("before", ["process", "host"])
def test_a_garbled_end_is_cut_only_when_the_host_died(
    tmp_path: Path, before: str, now: str
) -> None:
    found = opened(tmp_path, durability=before)
    grant(found, Allocate("a", 0, "", 1, 3))
    journal = found.journal.directory
    closed(found)
    unacknowledge(journal)
    (_, path), *_ = files.segments(journal)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=f"set-aside {tmp_path}"):
            opened(tmp_path, durability=now)
    if before == "process":
        return
    rebooted(tmp_path)
    found = opened(tmp_path, durability=now)
    assert found.pools[0].pool.blocks.held == 0
    assert "the journal ended in an unfinished write, which was cut" in events(found)
    closed(found)
    found = opened(tmp_path, durability=now)
    assert found.pools[0].pool.blocks.held == 0
    closed(found)


def test_what_a_host_left_that_died_is_cut_before_its_boot_is_forgotten(tmp_path: Path) -> None:
    """A process that dies right after its start leaves what the next one can read."""
    found = opened(tmp_path, durability="host")
    grant(found, Allocate("a", 0, "", 1, 3))
    journal = found.journal.directory
    closed(found)
    unacknowledge(journal)
    (_, path), *_ = files.segments(journal)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    rebooted(tmp_path)
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from kvblock_service.journal import open as opening, state_dir\n"
        "from tests.unit.journal.kept import BOUNDS, GEOMETRY\n"
        "put = state_dir.write_identity\n"
        "def die(*arguments):\n"
        "    if sys.argv[2] == 'after': put(*arguments)\n"
        "    os.kill(os.getpid(), 9)\n"
        "state_dir.write_identity = die\n"
        "opening.open_journal(Path(sys.argv[1]), [GEOMETRY], BOUNDS, durability='host')\n"
    )
    for moment in ("before", "after"):
        command = [sys.executable, "-c", script, str(tmp_path), moment]
        ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
        assert ended.returncode == -signal.SIGKILL
    found = opened(tmp_path, durability="host")
    assert found.pools[0].pool.blocks.held == 0
    closed(found)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="--state-dir names another one"):
        opened(tmp_path / "file" / "state")


def test_discarding_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is no state directory"):
        discard_pool(tmp_path, "main")
    assert list(tmp_path.iterdir()) == []
    closed(opened(tmp_path))
    with pytest.raises(JournalError, match="has no pool other"):
        discard_pool(tmp_path, "other")
    taken = StateDir(tmp_path)
    with pytest.raises(StateDirInUse):
        discard_pool(tmp_path, "main")
    taken.release()


def test_a_system_without_a_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "_BOOT_ID", tmp_path / "none")
    with pytest.raises(JournalError, match="--ephemeral keeps no state"):
        opened(tmp_path / "state")


def test_a_failed_start_lets_go_of_the_directory(tmp_path: Path) -> None:
    closed(opened(tmp_path))
    for _ in range(2):
        with pytest.raises(GeometryChanged):
            opened(tmp_path, GEOMETRY._replace(total_blocks=1))
    closed(opened(tmp_path))
