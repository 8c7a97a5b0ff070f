"""Snapshots beside a running server, and what a crash leaves at each moment."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import CreatePool, Free, Stamp, Step
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.journal import codec, files
from kvblock_service.journal.compaction import SnapshotLimits
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import LogEvent
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.records import CommandRecord
from kvblock_service.journal.recovery import recover
from tests.unit.journal.compacting import ALL, LIMITS, Make, Server, no_more_files, until
from tests.unit.journal.kept import BOUNDS, FLOOR, GEOMETRY, state_of, write


def test_a_snapshot_is_made_when_it_is_due(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max)
    server.work(48)
    assert compactor.tick() == []
    assert compactor.idle
    for _ in range(3):
        server.work(50)
        event = until(compactor, lambda event: True)
        assert event.event == "snapshot", event
        server.check()
        server.journal.settle()
        assert server.journal.snapshot_position == server.journal.position
        assert len(files.snapshots(server.directory)) == 1
        server.work(1)
        server.check()
    compactor.stop()
    server.journal.close()
    server.check()


def test_bytes_make_one_due_too(server: Server, make: Make) -> None:
    compactor = make(server.journal, SnapshotLimits(10**9, 1000), BOUNDS.request_ids_max)
    server.work(30)
    assert until(compactor, lambda event: True).event == "snapshot"
    assert compactor.tick() == []
    assert compactor.idle
    server.journal.close()


def test_the_server_goes_on_meanwhile(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max)
    server.work(60)
    events: list[LogEvent] = []
    while not events:
        server.work(1)
        events = compactor.tick()
    assert events[0].event == "snapshot"
    server.check()
    server.journal.close()
    server.check()


KILLED = """
import os, pathlib, sys
from kvblock_service.journal import compact, files
def die(*_, **__):
    os.kill(os.getpid(), 9)
def partly(file, data):
    os.write(file.fileno(), data[: len(data) // 2])
    die()
stage = sys.argv[1]
if stage == "before":
    compact.snapshot.encode = die
elif stage == "writing":
    real = pathlib.Path.open
    class Partly:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def write(self, data): partly(self.file, data)
    pathlib.Path.open = lambda path, mode="r", *rest: (
        Partly(real(path, mode, *rest)) if mode == "wb" else real(path, mode, *rest))
elif stage == "renaming":
    pathlib.Path.replace = die
else:
    compact.FileReader.look_for_snapshots = die
sys.exit(compact.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("stage", ["before", "writing", "renaming", "after"])
def test_a_killed_snapshot_leaves_a_sound_directory(server: Server, stage: str) -> None:
    server.work(70)
    server.journal.settle()
    assert server.journal.rotate()
    server.journal.settle()
    position = server.journal.sealed_position
    assert position == server.journal.position
    arguments = [server.directory, FLOOR, position, 4, "process"]
    command = [sys.executable, "-c", KILLED, stage, *map(str, arguments)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    server.check()
    assert bool(files.snapshots(server.directory)) == (stage == "after")
    server.work(5)
    server.check()
    server.journal.close()
    journal = FileJournal(server.directory, FLOOR)
    journal.begin()
    assert list(server.directory.glob("snapshot-*.partial")) == []
    journal.close()
    server.check()


def test_a_truncation_that_ended_half_way(server: Server, make: Make) -> None:
    for _ in range(4):
        server.work(30)
        server.journal.settle()
        assert server.journal.rotate()
    server.journal.settle()
    limits = SnapshotLimits(1, 1 << 40)
    closed = [path for _, path in files.segments(server.directory)][:4]
    kept = {path: path.read_bytes() for path in closed}
    server.work(1)
    compactor = make(server.journal, limits, BOUNDS.request_ids_max)
    assert until(compactor, lambda event: True).event == "snapshot"
    server.journal.close()
    for path in reversed(closed):
        path.write_bytes(kept[path])
        server.check()


def test_a_failed_snapshot_is_told_and_tried_again(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max, retry_seconds=0.0)
    server.work(60)
    server.journal.settle()
    (number, path), *_ = files.segments(server.directory)
    assert number == 1
    while compactor.idle:
        compactor.tick()
    server.journal.settle()
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    event = until(compactor, lambda event: True)
    assert (event.level, event.event) == ("warning", "no snapshot could be made")
    assert path.name in str(event.fields["problem"])
    path.write_bytes(whole)
    assert until(compactor, lambda event: True).event == "snapshot"
    server.check()
    server.journal.close()


def test_what_cannot_be_dropped_now_is_dropped_later(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max, retry_seconds=0.0)
    server.work(60)
    while not compactor._running:
        compactor.tick()
    server.work(60)
    server.journal.settle()
    with no_more_files():
        events = [until(compactor, lambda event: True), *compactor.tick()]
        events.append(until(compactor, lambda event: event.level == "warning"))
    assert events[0].event == "snapshot"
    assert events[-1].event == "what a snapshot stands for could not be dropped"
    assert "Too many open files" in str(events[-1].fields["problem"])
    assert server.journal.snapshot_position == 0
    # The next one is made after that.
    assert until(compactor, lambda event: True).fields["position"] == server.journal.position
    assert len(files.snapshots(server.directory)) <= 2
    server.journal.settle()
    assert [position for position, _ in files.snapshots(server.directory)] == [121]
    server.check()
    server.journal.close()


def test_a_snapshot_that_comes_due_in_a_write(server: Server, make: Make) -> None:
    """A write that waits for a disk runs in a thread, beside the ticks."""
    server.work(60)
    server.journal.settle()
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max)
    segment = server.journal._segment
    assert segment is not None
    append, begun, go = segment.append, threading.Event(), threading.Event()

    def held(first: int, records: Sequence[bytes]) -> None:
        begun.set()
        assert go.wait(60)
        append(first, records)

    segment.append = held  # type: ignore[method-assign]
    writing = threading.Thread(target=server.work, args=(1,), daemon=True)
    writing.start()
    assert begun.wait(60)
    for _ in range(3):
        assert compactor.tick() == []
    server.journal.settle()
    assert server.journal.sealed_position == 0
    go.set()
    writing.join()
    server.work(5)
    assert compactor.tick() == []
    assert server.journal._target == 62
    assert until(compactor, lambda event: True).fields["position"] == 62
    server.check()
    server.journal.close()
    server.check()


def test_a_million_held_blocks(tmp_path: Path, make: Make) -> None:
    journal = FileJournal(tmp_path, FLOOR)
    geometry = GEOMETRY._replace(total_blocks=1_100_000)
    bounds = Bounds(8, 200_000, 16)
    pool = Pool(geometry, bounds, FLOOR)
    batch = [codec.encode(CreatePool(geometry, FLOOR, True))]
    for number in range(100):
        ids = list(range(number * 1000, number * 1000 + 1000))
        command = Step(f"engine-{number % 8}", 0, "", 0, [], ids, [10] * 1000, ALL)
        pool.apply(command, Stamp(1, number, ""))
        batch.append(codec.encode(CommandRecord("main", Stamp(1, number, ""), command)))
    write(journal, batch)
    compactor = make(journal, LIMITS, 16)
    assert until(compactor, lambda event: True).event == "snapshot"
    free = Free("engine-0", 0, "", 0)
    pool.apply(free, Stamp(1, 1, ""))
    write(journal, [codec.encode(CommandRecord("main", Stamp(1, 1, ""), free))])
    journal.close()
    started = time.perf_counter()
    recovered = recover(FileReader(tmp_path, FLOOR), bounds)
    print(f"recovered in {time.perf_counter() - started:.3f} s")
    assert recovered.records == 1
    (entry,) = recovered.state.pools
    assert audit(entry.pool).violations == []
    assert state_of(entry.pool) == state_of(pool)
