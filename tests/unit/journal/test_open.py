"""A state directory: whose it is, of which boot, and with which pools."""

import errno
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
    Granted,
)
from kvblock_service.journal import codec
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.open import GeometryChanged, discard_pool
from kvblock_service.journal.state_dir import StateDir, StateDirInUse
from tests.unit.journal.kept import BOUNDS, GEOMETRY, write
from tests.unit.journal.opening import closed, events, grant, opened, rebooted


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


def test_a_failed_start_lets_go_of_the_directory(tmp_path: Path) -> None:
    closed(opened(tmp_path))
    for _ in range(2):
        with pytest.raises(GeometryChanged):
            opened(tmp_path, GEOMETRY._replace(total_blocks=1))
    closed(opened(tmp_path))
