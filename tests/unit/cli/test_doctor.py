"""What `kvblock doctor` makes of what it reads, where a server cannot be brought to it."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvblock import BlockInfo, BlockState, EngineInfo, PoolStats, ServerStats
from kvblock_cli.doctor import process, server, state_dir
from kvblock_cli.doctor.findings import Finding, Status, in_bytes

GIB = 1024**3


def results(findings: Any) -> list[tuple[str, Status]]:
    """The checks and their results; all but good ones have to say what to do."""
    found: list[Finding] = list(findings)
    assert all(bool(one.action) == (one.status is not Status.OK) for one in found), found
    return [(one.check, one.status) for one in found]


def client(**answers: Any) -> Any:
    """A client that answers a method with a list."""
    return SimpleNamespace(
        **{name: lambda *_, _rows=rows, **__: iter(_rows) for name, rows in answers.items()}
    )


def pool(name: str, free: int, quarantined: int) -> PoolStats:
    held = 100 - free - quarantined
    return PoolStats(name, 100, free, held, 16, 0, 0, 0, 0, {}, 0, 0, (), quarantined)


def engine(left: float | None, age: float | None, held: int = 0) -> EngineInfo:
    return EngineInfo("main", "e", 0 if left is None else 7, left, held, 0, False, age)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], [Status.OK]),
        ([engine(7.0, 3.0), engine(None, None, held=0)], [Status.OK]),
        ([engine(2.4, 7.6)], [Status.WARNING]),
        ([engine(-0.1, 10.1)], [Status.WARNING]),
        ([engine(None, None, held=3)], [Status.WARNING]),
        ([engine(1.0, 9.0), engine(None, None, held=3)], [Status.WARNING, Status.WARNING]),
    ],
)
def test_leases_that_are_late_and_blocks_without_one(
    rows: list[EngineInfo], told: list[Status]
) -> None:
    found = list(server.engines(client(list_engines=rows)))
    assert results(found) == [("engines", one) for one in told]
    if told == [Status.WARNING]:
        assert "e in main (" in found[0].text


def test_many_names_are_counted() -> None:
    rows = [engine(None, None, held=3)] * 8
    (found,) = server.engines(client(list_engines=rows))
    assert found.text.endswith("e in main (3) and 3 more")


def test_pools_that_are_used_up_or_wait() -> None:
    def of(*pools: PoolStats) -> list[tuple[str, Status]]:
        return results(server.pools(ServerStats(pools, 1)))

    assert of(pool("a", 1, 25)) == [("quarantine", Status.OK), ("pools", Status.OK)]
    assert of(pool("a", 1, 26)) == [("quarantine", Status.WARNING), ("pools", Status.OK)]
    assert of(pool("a", 0, 0)) == [("quarantine", Status.OK), ("pools", Status.WARNING)]
    assert of() == [("quarantine", Status.OK), ("pools", Status.WARNING)]


def test_blocks_that_were_granted_in_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    stats = ServerStats((pool("a", 1, 0),), 1)

    def of(*since: float | None) -> list[tuple[str, Status]]:
        rows = [BlockInfo(0, BlockState.HELD, "e", 1, one, "", None) for one in since]
        return results(server.clock(client(list_blocks=rows), stats))

    assert of(None, 900.0, 1001.0) == [("clock", Status.OK)]
    assert of(900.0, 1003.0) == [("clock", Status.WARNING)]


@pytest.mark.parametrize(
    ("free", "inodes", "status"),
    [
        (2 * GIB, 9, Status.OK),
        (GIB // 2, 9, Status.WARNING),
        (GIB // 8, 9, Status.PROBLEM),
        (2 * GIB, 0, Status.PROBLEM),
    ],
)
def test_room_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, inodes: int, status: Status
) -> None:
    found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=10, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    assert results([state_dir.disk(tmp_path)]) == [("disk", status)]


@pytest.mark.parametrize(
    ("kind", "durability", "told"),
    [
        ("ext4", "host", []),
        ("tmpfs", "process", []),
        ("tmpfs", "host", [Status.PROBLEM]),
        ("overlay", "process", [Status.WARNING]),
        ("nfs4", "process", [Status.WARNING]),
    ],
)
def test_file_systems(tmp_path: Path, kind: str, durability: str, told: list[Status]) -> None:
    place = tmp_path / "with blank"
    place.mkdir()
    (place / "identity.json").write_text(f'{{"durability": "{durability}"}}')
    mounts = tmp_path / "mountinfo"
    mounted = str(place).replace(" ", r"\040")
    mounts.write_text(
        "22 1 0:1 / / rw shared:1 - btrfs /dev/a rw\n"
        f"23 22 0:2 / {mounted} rw - {kind} b rw\n"
        f"24 22 0:3 / {mounted}er rw - xfs c rw\n"
    )
    assert state_dir.kind_of(place / "state", mounts) == kind
    assert state_dir.kind_of(tmp_path, mounts) == "btrfs"
    assert results(state_dir.filesystem(place, mounts)) == [("disk", one) for one in told]


class Process:
    """A process as /proc and /sys tell of it."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "7/fd").mkdir(parents=True)
        (self.cgroups / "kv").mkdir(parents=True)
        self.write("cgroup", "0::/kv\n")
        self.write("status", "Name:\tpython\nNSpid:\t7\t1\nVmRSS:\t  1048576 kB\n")
        self.descriptors(8192)

    def write(self, name: str, text: str) -> None:
        (self.proc / "7" / name).write_text(text)

    def descriptors(self, limit: int | str, used: int = 0) -> None:
        self.write("limits", f"Limit\nMax open files            {limit}   9000   files\n")
        for index in range(used):
            (self.proc / "7/fd" / str(index)).touch()

    def memory(self, limit: str, killed: int = 0) -> None:
        (self.cgroups / "kv/memory.max").write_text(f"{limit}\n")
        (self.cgroups / "kv/memory.events").write_text(f"low 0\noom_kill {killed}\n")

    def found(self) -> list[tuple[str, Status]]:
        return results(process.limits(7, self.proc, self.cgroups))


def test_descriptors_and_memory(tmp_path: Path) -> None:
    seen = Process(tmp_path)
    good = [("limits", Status.OK), ("memory", Status.OK)]
    assert seen.found() == good
    seen.memory("max")
    assert seen.found() == good
    seen.memory(str(2 * GIB))
    assert seen.found() == good
    seen.memory(str(GIB + 1))
    assert seen.found() == [("limits", Status.OK), ("memory", Status.WARNING)]
    seen.memory("max", killed=2)
    assert seen.found() == [*good, ("memory", Status.WARNING)]
    seen.memory("max")
    seen.descriptors(1024)
    assert seen.found() == [("limits", Status.WARNING), ("memory", Status.OK)]
    seen.descriptors("unlimited")
    assert seen.found() == [("memory", Status.OK)]
    seen.descriptors(2000, used=1601)
    assert seen.found() == [("limits", Status.WARNING), ("memory", Status.OK)]
    assert process.pids_of(7, seen.proc) == {7, 1}


def test_what_is_not_told_is_left_out(tmp_path: Path) -> None:
    assert list(process.limits(7, tmp_path, tmp_path)) == []
    assert process.pids_of(7, tmp_path) == {7}
    assert state_dir.kind_of(tmp_path, tmp_path / "none") == ""


def test_bytes_in_words() -> None:
    assert [in_bytes(one) for one in (3 * 1024**2 // 2, GIB, 2048 * GIB)] == [
        "1.5 MiB",
        "1.0 GiB",
        "2,048.0 GiB",
    ]
