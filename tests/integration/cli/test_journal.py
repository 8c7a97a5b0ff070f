"""`kvblock journal`: what it reads, beside a server and without one, and what it refuses."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Reclaim,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.journal import codec, files
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.journal.records import CommandRecord, is_persisted
from tests.integration.cli.console import Console
from tests.integration.cli.every_command import Here
from tests.unit.journal.kept import write

SHELL = Console("")
GEOMETRY = Geometry("main", 20, 16, 0)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[OpenedJournal]:
    """A state directory as a running server has it: records 2 to 6 are commands."""
    bounds = Bounds(8, 64, 16)
    opened = open_journal(tmp_path / "state", [GEOMETRY], bounds, owner="a test")
    pool = opened.pools[0].pool
    stamp = Stamp(1, 1_700_000_000_000, "")
    attached, _ = pool.apply(attach := Attach("b", 0, "", False, 1000, 0), stamp)
    assert isinstance(attached, Attached)
    write(opened.journal, [codec.encode(CommandRecord("main", stamp, attach))])
    for command in (
        Allocate("a", 0, "r1", 7, 3),
        Step("b", attached.epoch, "", 1, [], [1, 2], [2, 1], StepPolicy.ALL_OR_NOTHING),
        Allocate("c", 0, "", 2**64 - 1, 4),
        Reclaim("c", 0, "", 5000),
    ):
        assert is_persisted(command, *pool.apply(command, stamp))
        write(opened.journal, [codec.encode(CommandRecord("main", stamp, command))])
    opened.journal.settle()
    yield opened
    opened.journal.close()
    opened.state_dir.release()


@pytest.fixture
def directory(kept: OpenedJournal) -> Path:
    return kept.state_dir.path


def test_verify_beside_a_server_and_without_one(kept: OpenedJournal, directory: Path) -> None:
    for _ in range(2):
        before = sorted(path.name for path in directory.rglob("*"))
        told = SHELL.out("journal", "verify", directory).splitlines()
        assert told[1].split() == ["main", "6", "4", "10", "2", "3"]
        assert told[2].endswith("snapshot at 0, 6 records behind it, the last at 6")
        found = json.loads(SHELL.out("journal", "verify", directory, "--json"))
        assert found["pools"][0]["held"] == 6
        assert found["problems"] == []
        assert sorted(path.name for path in directory.rglob("*")) == before
        kept.journal.close()


def test_dump(directory: Path) -> None:
    lines = SHELL.out("journal", "dump", directory).splitlines()
    assert [line.split()[1] for line in lines] == [
        "CreatePool",
        "Attach",
        "Allocate",
        "Step",
        "Allocate",
        "Reclaim",
    ]
    assert 'request_id="r1" sequence_id=7 num_blocks=3' in lines[2]
    found = SHELL.out("journal", "dump", directory, "--json", "--from", "4", "--limit", 1)
    assert json.loads(found) | {"epoch": "0"} == {
        "position": "4",
        "kind": "Step",
        "pool": "main",
        "now_ms": 1,
        "wall_ms": 1_700_000_000_000,
        "trace_id": "",
        "engine": "b",
        "epoch": "0",
        "request_id": "",
        "step_id": "1",
        "free_ids": [],
        "allocate_ids": ["1", "2"],
        "num_blocks": [2, 1],
        "policy": "ALL_OR_NOTHING",
        "release": [],
        "acquire": 0,
        "trim_ids": [],
        "trim_heads": [],
        "trim_tails": [],
    }


def test_export(kept: OpenedJournal, directory: Path) -> None:
    (pool,) = json.loads(SHELL.out("journal", "export", directory))["pools"]
    assert (pool["pool"], pool["total_blocks"], pool["block_size"]) == ("main", 20, 16)
    epoch = kept.pools[0].pool.engines["b"].epoch
    assert pool["engines"] == [
        {
            "engine": "b",
            "epoch": str(epoch),
            "sequences": [
                {"sequence_id": "1", "blocks": [3, 4]},
                {"sequence_id": "2", "blocks": [5]},
            ],
        },
        {"engine": "a", "epoch": "0", "sequences": [{"sequence_id": "7", "blocks": [0, 1, 2]}]},
    ]
    assert pool["quarantine"] == [{"engine": "c", "epoch": "0", "blocks": [6, 7, 8, 9]}]


def test_discard_needs_a_stopped_server(kept: OpenedJournal, directory: Path) -> None:
    told = SHELL.error("journal", "discard", directory, "--yes", "--pool", "main", expect=1)
    assert f"process {os.getpid()}" in told
    assert "(a test)" in told
    kept.journal.close()
    kept.state_dir.release()
    told = SHELL.error("journal", "discard", directory, "--yes", "--pool", "other", expect=1)
    assert "has no pool other" in told
    assert (
        SHELL.out("journal", "discard", directory, "--yes", "--pool", "main")
        == "pool main is dropped\n"
    )
    assert json.loads(SHELL.out("journal", "export", directory))["pools"] == []


def test_set_aside_needs_a_stopped_server_and_empties_the_pools(
    kept: OpenedJournal, directory: Path
) -> None:
    told = SHELL.error("journal", "set-aside", directory, "--yes", expect=1)
    assert f"process {os.getpid()}" in told
    kept.journal.close()
    kept.state_dir.release()
    told = SHELL.out("journal", "set-aside", directory, "--yes")
    names = [line.removeprefix("set aside as ") for line in told.splitlines()]
    assert len(names) == 2
    assert all(Path(name).exists() for name in names)
    told = SHELL.error("journal", "set-aside", directory, "--yes", expect=1)
    assert "has nothing to set aside" in told
    assert "is no state directory" in SHELL.error("journal", "verify", directory, expect=1)


def test_damage_is_told_with_its_place(kept: OpenedJournal, directory: Path) -> None:
    kept.journal.close()
    ((_, path),) = files.segments(kept.journal.directory)
    data = path.read_bytes()
    at = data.index(b"mainar1")
    place = {
        ".log": f"{path} is damaged at byte",
        ".db": "record 3 cannot be read: its checksum is wrong",
    }
    path.write_bytes(data[:at] + b"M" + data[at + 1 :])
    for command in ("verify", "export", "dump"):
        done = SHELL.run("journal", command, directory, expect=1)
        assert place[path.suffix] in done.stderr


def test_what_is_no_state_directory(tmp_path: Path) -> None:
    for command in (["verify"], ["dump"], ["export"], ["discard", "--yes", "--pool", "main"]):
        told = SHELL.error("journal", *command, tmp_path, expect=1)
        assert "is no state directory" in told
    assert list(tmp_path.iterdir()) == []


def test_the_state_directory_is_that_of_serve(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    config = tmp_path / "kvblock.toml"
    config.write_text(f'state_dir = "{directory}"\n')
    monkeypatch.setenv("HOME", str(directory.parent))
    for name, value in (
        ("KVBLOCK_STATE_DIR", str(directory)),
        ("KVBLOCK_STATE_DIR", f"~/{directory.name}"),
        ("KVBLOCK_CONFIG", str(config)),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            for command in ("verify", "dump", "export"):
                done = here.run(f"journal {command}")
                assert (done.code, done.err) == (0, ""), (name, value, command)
            assert "main" in here.run("journal verify").out
    monkeypatch.setenv("KVBLOCK_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("KVBLOCK_CONFIG", str(config))
    assert f"{tmp_path}/none" in here.run("journal verify").err
    # What is named goes before what is configured.
    assert here.run("journal verify", str(directory)).code == 0


def test_a_configuration_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, here: Here, tmp_path: Path
) -> None:
    monkeypatch.setenv("KVBLOCK_CONFIG", str(tmp_path / "none.toml"))
    done = here.run("journal verify")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: KVBLOCK_CONFIG {tmp_path}/none.toml: No such file or directory\n"
