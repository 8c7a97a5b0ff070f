"""Memory files that are not what their server made: refused, and left as they are."""

import os
from pathlib import Path

import pytest

from kvblock_service.memory import (
    MemoryFileError,
)
from kvblock_service.memory.owner_file import OwnerFile, owner_path
from tests.unit.memory.serving import EPOCH, SIZE, make, names, served


def replace_by_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_copy(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(bytes(SIZE))


def shorten(path: Path) -> None:
    os.truncate(path, SIZE - 1)


def link(path: Path) -> None:
    os.link(path, path.with_name("elsewhere"))


def take_away(path: Path) -> None:
    path.unlink()


def other_owner_file(path: Path) -> None:
    owner_path(path).write_text('{"format": 1}')


def no_owner_file(path: Path) -> None:
    owner_path(path).write_bytes(b"\xff[")


def later_owner_file(path: Path) -> None:
    owner_path(path).write_text('{"format": 2}')


def owner_file_link(path: Path) -> None:
    owner = owner_path(path)
    owner.rename(owner.with_name("elsewhere"))
    owner.symlink_to(owner.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (replace_by_link, "it is a symbolic link, not a regular file"),
        (replace_by_directory, "it is a directory, not a regular file"),
        (replace_by_fifo, "it is a FIFO, not a regular file"),
        (replace_by_copy, "is not the file that this server made"),
        (shorten, f"has {SIZE - 1} bytes, and the pool's memory has {SIZE}"),
        (link, "has another name, too"),
        (take_away, "is gone, and engines may have it mapped still"),
        (other_owner_file, "its fields are not pool, bytes"),
        (no_owner_file, "it is no owner file of kvblock"),
        (later_owner_file, "it has format 2; this program reads format 1"),
        (owner_file_link, "it is a symbolic link, not a regular file"),
    ],
)
def test_a_file_that_is_not_its_own_is_refused(
    directory: Path, state_dir: Path, spoil: "object", problem: str
) -> None:
    path = make(directory, state_dir)
    spoil(path)  # type: ignore[operator]
    before = names(directory)
    with pytest.raises(MemoryFileError, match=problem):
        served(directory, state_dir).take("main", SIZE)
    assert names(directory) == before


def test_a_new_file_does_not_follow_a_link(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    victim = directory / "victim"
    victim.write_text("precious")
    files.path("main").symlink_to(victim)
    with pytest.raises(MemoryFileError, match="symbolic link"):
        files.take("main", SIZE)
    assert victim.read_text() == "precious"


def test_a_file_of_a_running_server_is_refused(directory: Path, state_dir: Path) -> None:
    files = served(directory, state_dir)
    files.take("main", SIZE)
    with pytest.raises(MemoryFileError, match="memory of another server that is running"):
        served(directory, state_dir).take("main", SIZE)
    files.close()


def test_files_of_another_state_directory_at_the_same_path_stay(
    directory: Path, state_dir: Path
) -> None:
    path = make(directory, state_dir)
    state_dir.rename(state_dir.with_name("another container's"))
    state_dir.mkdir()
    assert served(directory, state_dir, EPOCH + 1).begin({}).removed == []
    assert path.exists()


def test_a_running_servers_file_stays(directory: Path, state_dir: Path) -> None:
    path = make(directory, state_dir)
    running = OwnerFile(owner_path(path))
    assert served(directory, state_dir).begin({}).removed == []
    running.close()
