"""A state directory after a reboot: what outlives the host, and what it left unfinished."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvblock_service.core.commands import (
    Allocate,
)
from kvblock_service.journal import files, state_dir
from kvblock_service.journal.interface import JournalDamaged, JournalError
from tests.unit.journal.kept import change_identity, unacknowledge
from tests.unit.journal.opening import closed, events, grant, opened, rebooted


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


def test_a_system_without_a_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dir, "_BOOT_ID", tmp_path / "none")
    with pytest.raises(JournalError, match="--ephemeral keeps no state"):
        opened(tmp_path / "state")
