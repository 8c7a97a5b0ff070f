"""What only files can show: torn and damaged ones, full disks, readers beside a writer."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.journal import files
from kvblock_service.journal import keeper as keeper_module
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.keeper import Keeper
from kvblock_service.journal.reader import SqliteReader
from kvblock_service.journal.sqlite import SqliteJournal

EPOCH = 7

WRITER = """
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from kvblock_service.journal.sqlite import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]), 7, sys.argv[2], segment_bytes=int(sys.argv[3]))
journal.begin()
n = journal.position
while True:
    size = n % 3 + 1
    journal.write([b"%d" % (n + k + 1) * (n % 50 + 1) for k in range(size)])
    n += size
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def read(directory: Path) -> SqliteReader:
    return SqliteReader(directory, EPOCH)


FRAME = files.FRAME_BYTES


def end_of(wal: Path) -> int:
    """Where the zeros begin that nothing was written to."""
    data = wal.read_bytes()
    starts = range(files.WAL_HEAD_BYTES, len(data), FRAME)
    return next((at for at in starts if not any(data[at : at + 24])), len(data))


def crashed(directory: Path, *records: bytes) -> Path:
    """A directory whose process died after writing these, one commit each; its last WAL."""
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from kvblock_service.journal.sqlite import SqliteJournal\n"
        f"journal = SqliteJournal(Path(sys.argv[1]), {EPOCH})\n"
        f"for record in {list(records)!r}: journal.write([record])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, directory], check=False)
    assert ended.returncode == -signal.SIGKILL
    wals = [Path(f"{path}-wal") for _, path in files.segments(directory)]
    return max((wal for wal in wals if wal.exists()), key=end_of)


@pytest.mark.parametrize("durable_on", ["process", "host"])
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, durable_on: str) -> None:
    acknowledged = 0
    for lines in (1, 20, 300, 50):
        command = [sys.executable, "-c", WRITER, str(tmp_path), durable_on, "40000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(lines):
                acknowledged = int(writer.stdout.readline())
            writer.kill()
            rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        reader = read(tmp_path)
        positions = [entry.position for entry in reader.replay()]
        assert positions == list(range(1, len(positions) + 1))
        # The process may have died between a commit and its acknowledgement.
        assert acknowledged <= len(positions) <= acknowledged + 3
        for position, record in reader.replay():
            assert record.startswith(b"%d" % position)
        acknowledged = len(positions)


def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    wal = crashed(tmp_path, b"one", b"two", b"three")
    os.truncate(wal, end_of(wal) - 100)
    journal = SqliteJournal(tmp_path, EPOCH)
    assert [entry.record for entry in journal.replay()] == [b"one", b"two"]
    (tail,) = journal.tails
    assert tail.path == wal
    assert tail.size == FRAME
    journal.write([b"four"])
    journal.close()
    assert list(read(tmp_path).replay())[-1] == Entry(3, b"four")


def test_every_length_of_a_torn_tail(tmp_path: Path) -> None:
    wal = crashed(tmp_path, b"one", b"two", b"three")
    whole = wal.read_bytes()[: end_of(wal)]
    for cut in (1, 23, 24, 25, FRAME - 1, FRAME):
        wal.write_bytes(whole[:-cut])
        assert [entry.record for entry in read(tmp_path).replay()] == [b"one", b"two"]
        wal.write_bytes(whole[:-cut] + bytes(cut + 100_000))
        assert [entry.record for entry in read(tmp_path).replay()] == [b"one", b"two"]


def test_damage_in_the_middle_of_a_wal_is_no_torn_tail(tmp_path: Path) -> None:
    wal = crashed(tmp_path, *(b"%d" % index * 900 for index in range(20)))
    whole = wal.read_bytes()
    frames = (end_of(wal) - files.WAL_HEAD_BYTES) // FRAME
    for index in range(frames - 6):
        damaged = bytearray(whole)
        damaged[32 + index * FRAME + 2000] ^= 1
        wal.write_bytes(damaged)
        with pytest.raises(JournalDamaged):
            list(read(tmp_path).replay())
    damaged = bytearray(whole)
    damaged[9] ^= 1
    wal.write_bytes(damaged)
    with pytest.raises(JournalDamaged):
        list(read(tmp_path).replay())


def closed(directory: Path, count: int) -> Path:
    journal = SqliteJournal(directory, EPOCH)
    for index in range(count):
        journal.write([b"%d" % index * 900])
    journal.close()
    ((_, path),) = files.segments(directory)
    return path


def test_a_damaged_database_stops_the_start(tmp_path: Path) -> None:
    path = closed(tmp_path, 30)
    whole = path.read_bytes()
    sound = list(read(tmp_path).replay())
    for at in (0, 100, files.PAGE_BYTES, 2 * files.PAGE_BYTES):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged, match=path.name):
            assert list(read(tmp_path).replay()) == sound, at
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JournalDamaged, match=path.name):
        list(read(tmp_path).replay())


def test_a_missing_segment_stops_the_start(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, EPOCH, segment_bytes=1)
    for index in range(9):
        journal.write([b"%d" % index])
        journal.settle()
    journal.close()
    paths = [path for _, path in files.segments(tmp_path)]
    first, following = map(files.first_position, paths[4:6])
    assert first is not None
    assert following is not None
    files.remove_segment(paths[4])
    with pytest.raises(JournalDamaged, match=f"records {first} to {following - 1} are missing"):
        list(read(tmp_path).replay())


def test_a_reader_beside_a_writer_changes_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, EPOCH)
    journal.write([b"one"])
    journal.settle()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert list(read(tmp_path).replay()) == [Entry(1, b"one")]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    journal.write([b"two"])
    assert list(read(tmp_path).replay()) == [Entry(1, b"one"), Entry(2, b"two")]
    journal.close()


def test_a_segment_that_is_closed_while_it_is_copied_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = crashed(tmp_path, *(b"%d" % index * 900 for index in range(20)))
    copy, copied = shutil.copyfile, Counter[Path]()

    def cut_short(source: Path, target: Path) -> None:
        """Copies half of what was written, and the keeper closes the segment meanwhile."""
        copied[source] += 1
        # The first copy is for the position that the segment begins with.
        if source != wal or copied[source] == 1:
            copy(source, target)
            return
        target.write_bytes(source.read_bytes()[: end_of(wal) // 2])
        keeper = Keeper(tmp_path, 0, synced=False)
        keeper.found([(Path(str(wal).removesuffix("-wal")), 20)])
        keeper.close()
        assert keeper.trouble == []
        assert not wal.exists()

    monkeypatch.setattr(shutil, "copyfile", cut_short)
    reader = read(tmp_path)
    assert [entry.position for entry in reader.replay()] == list(range(1, 21))
    assert reader.tails == []


def test_a_segment_of_an_earlier_process_is_sealed_when_its_wal_is_in_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = crashed(tmp_path, b"one", b"two")
    shrink, closing = keeper_module._shrink, threading.Event()

    def wait(path: Path) -> None:
        assert closing.wait(60)
        shrink(path)

    monkeypatch.setattr(keeper_module, "_shrink", wait)
    journal = SqliteJournal(tmp_path, EPOCH)
    journal.begin()
    assert journal.position == 2
    assert journal.sealed_position == 0
    closing.set()
    journal.settle()
    assert journal.sealed_position == 2
    assert not wal.exists()
    journal.close()


def test_a_segment_has_its_name_when_its_database_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, seen = sqlite3.connect, []

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            if arguments[0] in ("PRAGMA journal_mode=WAL", files.TABLE):
                seen.append(files.segments(tmp_path))
            return super().execute(*arguments)

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Watched))
    journal = SqliteJournal(tmp_path, EPOCH, segment_bytes=1)
    journal.begin()
    journal.settle()
    # The first segment, then the one that is made ready.
    first = files.segments(tmp_path)[:1]
    assert seen == [[], [], first, first, first, files.segments(tmp_path)]
    journal.close()
    assert list(tmp_path.glob("*partial*")) == []


def test_a_process_that_dies_while_it_closes_segments_of_another_loses_nothing(
    tmp_path: Path,
) -> None:
    """Each start closes the WALs of the one before, and is killed at another moment of that."""
    count = 0
    for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
        command = [sys.executable, "-c", WRITER, str(tmp_path), "process", "4000000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(delay)
            writer.kill()
            rest = writer.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        positions = [entry.position for entry in read(tmp_path).replay()]
        assert positions == list(range(1, len(positions) + 1))
        assert count < acknowledged <= len(positions) <= acknowledged + 3
        count = len(positions)


def test_truncation_removes_whole_segments_and_old_snapshots(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, EPOCH, segment_bytes=1)
    for index in range(9):
        journal.write([b"%d" % index])
        journal.settle()
    journal.put_snapshot(3, b"old")
    journal.put_snapshot(6, b"new")
    journal.truncate(9)
    journal.settle()
    assert [position for position, _ in files.snapshots(tmp_path)] == [6]
    assert list(journal.replay()) == [Entry(index + 1, b"%d" % index) for index in range(6, 9)]
    kept = [files.first_position(path) for _, path in files.segments(tmp_path)]
    assert [first for first in kept if first] == [7, 8, 9]
    journal.close()
    assert journal.trouble == []


def test_a_record_cannot_be_lost_between_failed_and_repeated_writes(tmp_path: Path) -> None:
    limited = """
import resource, signal, sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.sqlite import SqliteJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
journal = SqliteJournal(Path(sys.argv[1]), 7)
kept = 0
while kept < 30:
    journal.write([b"%d" % (kept + 1)]); kept += 1
journal.settle()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
failures = 0
while not failures:
    try:
        journal.write([b"%d" % (kept + k + 1) * 2000 for k in range(5)]); kept += 5
    except JournalError as error:
        failures += 1; print(error)
assert journal.position == kept, (journal.position, kept)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
for _ in range(5):
    try:
        journal.write([b"lost" * 4000])
        raise SystemExit("a write above the limit went through")
    except JournalError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for _ in range(30):
    journal.write([b"%d" % (kept + 1)]); kept += 1
print(kept)
import os
os.kill(os.getpid(), 9) if sys.argv[2] == "killed" else journal.close()
"""
    for how in ("closed", "killed"):
        directory = tmp_path / how
        directory.mkdir()
        command = [sys.executable, "-c", limited, str(directory), how]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        if how == "killed" and not ended.stdout:
            continue
        *texts, kept = ended.stdout.split("\n")[:-1]
        assert "cannot be written" in texts[0]
        found = list(read(directory).replay())
        assert [entry.position for entry in found] == list(range(1, int(kept) + 1))
        for position, record in found:
            assert record.startswith(b"%d" % position)


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, EPOCH)
    tmp_path.rmdir()
    with pytest.raises(JournalError, match="cannot be read"):
        journal.write([b"one"])
    assert journal.position == 0
    tmp_path.mkdir()
    journal.write([b"one"])
    assert list(journal.replay()) == [Entry(1, b"one")]
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing_and_recovers(small_disk: Path) -> None:
    journal = SqliteJournal(small_disk, EPOCH, segment_bytes=200_000)
    journal.write([b"1"])
    journal.settle()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    kept = 1
    failures: list[str] = []
    while len(failures) < 5:
        try:
            journal.write([b"%d" % (kept + index + 1) * 3000 for index in range(3)])
            kept += 3
        except JournalError as error:
            failures.append(str(error))
        assert journal.position == kept
    assert all("disk" in text or "space" in text for text in failures), failures
    assert [entry.position for entry in journal.replay()] == list(range(1, kept + 1))
    ballast.unlink()
    for _ in range(20):
        journal.write([b"%d" % (kept + 1) * 3000])
        kept += 1
    journal.close()
    found = list(read(small_disk).replay())
    assert [entry.position for entry in found] == list(range(1, kept + 1))
    assert all(record.startswith(b"%d" % position) for position, record in found)


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    journal = SqliteJournal(small_disk, EPOCH, segment_bytes=200_000)
    journal.write([b"one"])
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert list(read(small_disk).replay()) == [Entry(1, b"one")]
    journal = SqliteJournal(small_disk, EPOCH, segment_bytes=200_000)
    for _ in range(3):
        with pytest.raises(JournalError, match="cannot be written"):
            journal.write([b"two"])
        assert journal.position == 1
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    journal.write([b"two"])
    journal.close()
    assert list(read(small_disk).replay()) == [Entry(1, b"one"), Entry(2, b"two")]
