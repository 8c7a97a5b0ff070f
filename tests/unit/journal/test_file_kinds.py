"""Only regular files are opened in a state directory, and its lock is not lost with a name."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvblock_service.journal import files
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.state_dir import StateDirInUse
from tests.unit.journal.directories import (
    REFUSED,
    closed,
    grant,
    journal_of,
    newest_segment,
    opened,
    snap,
)


def replaced(path: Path, what: str) -> None:
    """Something else where a file was."""
    aside = path.with_name(f"was-{path.name}")
    if path.exists():
        path.rename(aside)
    if what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to(aside)
    elif what == "FIFO":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))


@contextmanager
def alarm() -> Iterator[None]:
    """End what waits for ever."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("what", ["directory", "link", "FIFO", "socket"])
@pytest.mark.parametrize("name", ["identity.json", "lock", "segment", "snapshot", "end"])
def test_what_is_no_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name of a socket is at most about 100 bytes long.
    monkeypatch.chdir(tmp_path)
    state = Path("s")
    found = opened(state)
    grant(found, 0)
    snap(found)
    closed(found)
    place = {
        "segment": newest_segment(state),
        "snapshot": files.snapshots(journal_of(state))[-1][1],
        "end": journal_of(state) / "end",
    }.get(name, state / name)
    replaced(place, what)
    with alarm(), pytest.raises(REFUSED) as caught:
        opened(state)
    told = str(caught.value)
    kinds = {"link": "a symbolic link"}
    assert f"it is {kinds.get(what, f'a {what}')}, not a regular file" in told
    assert str(place) in told


def test_a_lock_that_is_a_link_changes_nothing_elsewhere(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    for make in (Path.symlink_to, Path.hardlink_to):
        precious.write_text("of somebody else")
        state = tmp_path / make.__name__
        closed(opened(state))
        (state / "lock").unlink()
        make(state / "lock", precious)
        with pytest.raises(JournalError, match="link"):
            opened(state)
        assert precious.read_text() == "of somebody else"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The directory of a server that is running."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.unit.journal.test_damage import opened\n"
        "found = opened(Path(sys.argv[1]))\nprint(flush=True)\nsys.stdin.read()\n"
    )
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield state
        running.kill()


@pytest.mark.parametrize("how", ["removed", "replaced", "moved away with the rest"])
def test_a_lock_is_not_lost_with_its_name(server: Path, how: str) -> None:
    (server / "lock").unlink()
    if how == "replaced":
        (server / "lock").touch()
    state = server
    if how == "moved away with the rest":
        state = server.with_name("other")
        server.rename(state)
    with pytest.raises(StateDirInUse, match="another process"):
        closed(opened(state))


def test_the_lock_of_an_older_server_counts(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys\n"
        "number = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(number, fcntl.LOCK_EX)\nprint(flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as older:
        assert older.stdout is not None
        older.stdout.readline()
        with pytest.raises(StateDirInUse):
            opened(tmp_path)
        older.kill()
    closed(opened(tmp_path))
