"""Which memory files nobody needs any more, and what removes them."""

from pathlib import Path

import pytest

from kvblock_service.journal.identity import StateIdentity, write_identity
from kvblock_service.memory import FileAccess, MemoryFileError, ServerFiles, file_owner
from kvblock_service.memory.inventory import FileState, memory_files, remove
from kvblock_service.memory.owner_file import owner_path

EPOCH = 1_700_000_000_000
SIZE = 4096


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.mkdir()
    return path


def state_dir(tmp_path: Path, epoch: int = EPOCH) -> Path:
    path = tmp_path / "state"
    path.mkdir(exist_ok=True)
    write_identity(path, StateIdentity("boot", epoch, "process"))
    return path


def taken(directory: Path, state: Path | None) -> ServerFiles:
    files = ServerFiles(directory, FileAccess(), file_owner(EPOCH, state))
    files.take("main", SIZE)
    return files


def states(directory: Path) -> list[tuple[FileState, str]]:
    return [(one.state, one.why) for one in memory_files(directory)]


def test_a_living_servers_file_is_in_use(directory: Path, tmp_path: Path) -> None:
    state = state_dir(tmp_path)
    files = taken(directory, state)
    (found,) = memory_files(directory)
    assert found == (str(files.path("main")), "main", SIZE, FileState.IN_USE, str(state), "")
    with pytest.raises(MemoryFileError, match="in use by a server that is running"):
        remove(files.path("main"))
    files.close()


def test_to_look_is_in_no_ones_way(directory: Path, tmp_path: Path) -> None:
    files = taken(directory, state_dir(tmp_path))
    files.close()
    assert states(directory) == [(FileState.STOPPED, "")]
    assert not files.take("main", SIZE)
    files.close()


def test_a_state_directory_that_began_anew_leaves_an_orphan(
    directory: Path, tmp_path: Path
) -> None:
    files = taken(directory, state_dir(tmp_path))
    files.close()
    state_dir(tmp_path, EPOCH + 1)
    assert states(directory) == [(FileState.ORPHAN, "its state directory has begun anew")]
    (tmp_path / "state/identity.json").unlink()
    assert states(directory) == [(FileState.ORPHAN, "its state directory has begun anew")]
    remove(files.path("main"))
    assert list(directory.iterdir()) == []


def test_a_state_directory_that_is_not_here_tells_nothing(directory: Path, tmp_path: Path) -> None:
    state = state_dir(tmp_path)
    taken(directory, state).close()
    state.rename(tmp_path / "elsewhere")
    ((found, why),) = states(directory)
    assert (found, "No such file" in why) == (FileState.UNKNOWN, True)
    state.mkdir()
    assert states(directory) == [
        (FileState.UNKNOWN, "another directory is where its state directory was")
    ]


def test_an_unreadable_identity_tells_nothing(directory: Path, tmp_path: Path) -> None:
    state = state_dir(tmp_path)
    taken(directory, state).close()
    (state / "identity.json").write_text("{")
    ((found, why),) = states(directory)
    assert (found, "is damaged" in why) == (FileState.UNKNOWN, True)


def test_a_server_without_a_journal_that_died_leaves_an_orphan(directory: Path) -> None:
    files = taken(directory, None)
    files._held.pop("main").close()
    assert states(directory) == [(FileState.ORPHAN, "its server had no journal")]


def test_what_was_never_finished_is_an_orphan(directory: Path) -> None:
    path = directory / "kvblock-1-abcdef01-main"
    owner_path(path).touch()
    assert states(directory) == [(FileState.ORPHAN, "its server died while it made it")]
    remove(path)
    assert list(directory.iterdir()) == []


def test_a_file_without_an_owner_file_is_unknown(directory: Path) -> None:
    path = directory / "kvblock-1-abcdef01-main"
    path.write_bytes(b"x")
    (found,) = memory_files(directory)
    assert found == (str(path), "", 1, FileState.UNKNOWN, "", f"{path.name}.owner is missing")
    owner_path(path).write_text("{}")
    assert states(directory) == [
        (FileState.UNKNOWN, f"{path.name}.owner: it is no owner file of kvblock")
    ]
    remove(path)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("psm_1", "is no memory file of kvblock"),
        ("kvblock-1-a-main.owner", "is no memory file of kvblock"),
        ("kvblock-1-a-main", "is not there"),
    ],
)
def test_only_memory_files_are_removed(directory: Path, name: str, problem: str) -> None:
    with pytest.raises(MemoryFileError, match=problem):
        remove(directory / name)


def test_other_files_are_not_listed(directory: Path) -> None:
    (directory / "psm_1").touch()
    assert list(memory_files(directory)) == []
    with pytest.raises(MemoryFileError, match="cannot be read"):
        list(memory_files(directory / "nowhere"))
