"""`kvblock memory`: what is listed, what is removed, and what stays."""

import json
from pathlib import Path

import pytest

from kvblock_service.memory import FileAccess, ServerFiles, file_owner
from tests.integration.cli.every_command import Here


def server_files(directory: Path, pool: str, state_dir: Path | None = None) -> ServerFiles:
    files = ServerFiles(directory, FileAccess(), file_owner(1, state_dir))
    files.take(pool, 4096)
    return files


def test_orphans_go_and_the_others_stay(here: Here, tmp_path: Path) -> None:
    directory, state_dir = tmp_path / "memory", tmp_path / "state"
    directory.mkdir()
    state_dir.mkdir()
    at = ("--memory-dir", str(directory))
    assert here.run("memory list", *at).out == "no memory files\n"
    assert here.run("memory clean", *at, "--yes").out == "no orphans\n"
    living = server_files(directory, "living")
    files = server_files(directory, "gone", state_dir)
    orphan = files.path("gone")
    files.close()
    lines = here.run("memory list", *at).out.splitlines()
    assert lines[0].split() == ["FILE", "POOL", "STATE", "WHY", "BYTES"]
    found = {line.split()[1]: " ".join(line.split()[2:]) for line in lines[1:]}
    assert found == {
        "gone": "orphan its state directory has begun anew 4,096",
        "living": "in use 4,096",
    }
    assert here.run("memory clean", *at, "--yes").out == f"removed {orphan}\n"
    (left,) = json.loads(here.run("memory list", *at, "--json").out)["files"]
    assert (left["pool"], left["state"], left["file_bytes"]) == ("living", "IN_USE", "4096")
    refused = here.run("memory clean", str(living.path("living")), *at, "--yes")
    assert refused.code == 1
    assert "is in use by a server that is running" in refused.err
    living.close()


def test_what_is_named_goes_though_its_server_may_come_back(here: Here, tmp_path: Path) -> None:
    files = server_files(tmp_path, "main", tmp_path)
    path = files.path("main")
    files.close()
    (tmp_path / "identity.json").write_text("damaged")
    at = ("--memory-dir", str(tmp_path))
    assert here.run("memory clean", *at, "--yes").out == "no orphans\n"
    assert path.exists()
    assert here.run("memory clean", str(path), *at, "--yes").out == f"removed {path}\n"
    assert not path.exists()


def test_a_directory_that_is_not_there_is_told(here: Here, tmp_path: Path) -> None:
    refused = here.run("memory list", "--memory-dir", str(tmp_path / "nowhere"))
    assert (refused.code, "cannot be read: No such file" in refused.err) == (1, True)


def test_the_directory_is_the_servers(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVBLOCK_MEMORY_DIR", str(tmp_path))
    server_files(tmp_path, "main", tmp_path).close()
    assert "main" in here.run("memory list").out
