"""The memory files of a server: made whole, found again, refused, removed."""

import errno
import os
import stat
from pathlib import Path

import pytest

from kvblock_service.memory import (
    MemoryFileError,
    access_of_sockets,
)
from kvblock_service.memory.owner_file import owner_path
from tests.unit.memory.serving import EPOCH, SIZE, make, names, served


def test_a_file_is_allocated_and_its_makers_alone(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    assert files.take("main", SIZE)
    path = files.path("main")
    assert files.uri("main") == f"shm://{path}"
    found = path.stat()
    assert found.st_size == SIZE
    assert found.st_blocks * 512 >= SIZE
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(owner_path(path).stat().st_mode) == 0o600
    assert path.read_bytes() == bytes(SIZE)
    assert path.name.startswith(f"kvblock-{EPOCH}-")
    assert path.name.endswith("-main")
    files.close()


def test_a_path_with_odd_characters_is_quoted_in_the_uri(tmp_path: Path, state_dir: Path) -> None:
    directory = tmp_path / "a b%"
    directory.mkdir()
    assert (
        served(directory, state_dir).uri("main").startswith(f"shm://{tmp_path}/a%20b%25/kvblock-")
    )


def test_mode_follows_the_setting_also_at_a_restart(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir, mode=0o660)
    files.take("main", SIZE)
    path = files.path("main")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(owner_path(path).stat().st_mode) == 0o600
    files.close()
    files = served(directory, state_dir, mode=0o600)
    files.take("main", SIZE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_group_are_those_of_the_socket(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir, mode=0o640, owner=12345, group=23456)
    files.take("main", SIZE)
    found = files.path("main").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)
    assert owner_path(files.path("main")).stat().st_uid == 0
    files.close()
    again = served(directory, state_dir)
    with pytest.raises(MemoryFileError, match="belongs to user 12345, not to user 0"):
        again.take("main", SIZE)


def test_a_restart_finds_its_file_with_its_content(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    files.take("main", SIZE)
    path = files.path("main")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"engine-0")
    inode = path.stat().st_ino
    files.close()
    assert names(directory) == [path.name, f"{path.name}.owner"]
    again = served(directory, state_dir)
    assert not again.take("main", SIZE)
    assert path.stat().st_ino == inode
    assert path.read_bytes()[4096:4104] == b"engine-0"
    again.close()


def test_a_server_without_a_journal_removes_its_files(directory: Path) -> None:
    first, second = served(directory, None), served(directory, None)
    first.take("main", SIZE)
    second.take("main", SIZE)
    assert first.path("main") != second.path("main")
    first.close()
    assert names(directory) == [second.path("main").name, f"{second.path('main').name}.owner"]
    second.close()
    assert names(directory) == []


def test_a_dropped_pool_takes_its_file_with_it(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    files.take("main", SIZE)
    files.take("other", SIZE)
    files.drop("main")
    files.drop("never there")
    assert names(directory) == [files.path("other").name, f"{files.path('other').name}.owner"]
    assert files.take("main", SIZE)
    files.close()


def test_too_little_space_says_how_much_is_missing(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    size = 2**60
    with pytest.raises(MemoryFileError, match=r"left: \d+ are missing\. Make") as raised:
        files.take("main", size)
    words = str(raised.value).replace(":", " ").split()
    left, missing = int(words[words.index("left") - 1]), int(words[words.index("are") - 1])
    assert left + missing == size
    assert names(directory) == []


def test_space_that_is_gone_meanwhile_is_refused(
    directory: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    files = served(directory, state_dir)
    with pytest.raises(MemoryFileError, match=f"is to have {SIZE} bytes"):
        files.take("main", SIZE)
    assert names(directory) == []


def test_what_a_dead_server_left_unfinished_is_made_anew(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    path = files.path("main")
    path.write_bytes(b"half")
    owner_path(path).touch(0o600)
    assert files.take("main", SIZE)
    assert path.stat().st_size == SIZE
    files.close()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path, state_dir: Path) -> None:
    with pytest.raises(MemoryFileError, match="memory_dir names the place"):
        served(tmp_path / "nowhere", state_dir).take("main", SIZE)


def test_files_that_no_pool_has_go_at_the_next_start(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    main, gone = files.path("main"), files.path("gone")
    assert files.begin({"main": SIZE, "gone": SIZE}) == ([main, gone], [], [])
    files.close()
    again = served(directory, state_dir)
    assert again.begin({"main": SIZE, "new": SIZE}) == ([again.path("new")], [main], [gone])
    assert names(directory) == sorted(
        name for path in (main, again.path("new")) for name in (path.name, f"{path.name}.owner")
    )
    again.close()
    anew = served(directory, state_dir, EPOCH + 1)
    assert anew.begin({}).removed == [main, again.path("new")]
    assert names(directory) == []


def test_a_start_that_is_refused_leaves_what_was_there(directory: Path, state_dir: Path) -> None:
    path = make(directory, state_dir)
    files = served(directory, state_dir)
    with pytest.raises(MemoryFileError, match="are missing"):
        files.begin({"main": SIZE, "new": SIZE, "huge": 2**60})
    assert names(directory) == [path.name, f"{path.name}.owner"]
    assert served(directory, state_dir).begin({"main": SIZE}).found == [path]


@pytest.mark.parametrize(
    ("socket", "directory_mode", "expected"),
    [
        (0o600, 0o755, 0o600),
        (0o660, 0o755, 0o660),
        (0o666, 0o755, 0o666),
        (0o640, 0o755, 0o600),
        (0o644, 0o755, 0o600),
        (0o622, 0o755, 0o666),
        (0o666, 0o700, 0o600),
        (0o666, 0o750, 0o660),
        (0o666, 0o740, 0o600),
    ],
)
def test_memory_is_open_to_those_who_can_connect(
    tmp_path: Path, socket: int, directory_mode: int, expected: int
) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and "pytest" in str(path):
            path.chmod(0o755)
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(directory_mode)
    sockets = [place / "kv.sock"]
    assert access_of_sockets(sockets, socket, None, None) == (expected, None, None)


def test_a_directory_of_another_group_holds_the_group_back(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(0o750)
    group = os.getegid() + 1
    assert access_of_sockets([place / "kv.sock"], 0o660, 7, group) == (0o600, 7, group)


def test_without_a_socket_memory_is_the_servers_alone() -> None:
    assert access_of_sockets([], 0o666, 7, 7) == (0o600, None, None)
    assert access_of_sockets([Path("/nowhere/there/kv.sock")], 0o666, None, None).mode == 0o600
