"""What only files can show: torn and damaged ones, full disks, readers beside a writer."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kvblock_service.journal import files
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import begun
from tests.unit.journal.kept import replay, write

EPOCH = 7


WRITER = """
import sys
from pathlib import Path
from kvblock_service.journal.file_journal import FileJournal
_, directory, durable_on, size = sys.argv
journal = FileJournal(Path(directory), 7, durable_on, segment_bytes=int(size))
journal.begin()
n = journal.position
while True:
    size = n % 3 + 1
    journal.append(journal.position, [b"%d" % (n + k + 1) * (n % 50 + 1) for k in range(size)])
    n += size
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def read(directory: Path) -> FileReader:
    return FileReader(directory, EPOCH)


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
        positions = [entry.position for entry in replay(reader)]
        assert positions == list(range(1, len(positions) + 1))
        # The process may have died between a commit and its acknowledgement.
        assert acknowledged <= len(positions) <= acknowledged + 3
        for position, record in replay(reader):
            assert record.startswith(b"%d" % position)
        acknowledged = len(positions)


def test_a_missing_segment_stops_the_start(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, EPOCH, segment_bytes=1)
    for index in range(9):
        write(journal, [b"%d" % index])
        journal.settle()
    journal.close()
    paths = [path for _, path in files.segments(tmp_path)]
    first, following = (begun(path).first for path in paths[4:6])
    assert first is not None
    assert following is not None
    paths[4].unlink()
    with pytest.raises(JournalDamaged, match=f"records {first} to {following - 1} are missing"):
        list(replay(read(tmp_path)))


def test_a_reader_beside_a_writer_changes_nothing(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, EPOCH)
    write(journal, [b"one"])
    journal.settle()
    before = sorted(path.name for path in tmp_path.iterdir())
    assert list(replay(read(tmp_path))) == [Entry(1, b"one")]
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    write(journal, [b"two"])
    assert list(replay(read(tmp_path))) == [Entry(1, b"one"), Entry(2, b"two")]
    journal.close()


def test_a_process_that_dies_while_it_closes_segments_of_another_loses_nothing(
    tmp_path: Path,
) -> None:
    """Each start takes over segments, and is killed at another moment of that."""
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
        positions = [entry.position for entry in replay(read(tmp_path))]
        assert positions == list(range(1, len(positions) + 1))
        assert count < acknowledged <= len(positions) <= acknowledged + 3
        count = len(positions)


def test_truncation_removes_whole_segments_and_old_snapshots(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, EPOCH, segment_bytes=1)
    for index in range(9):
        write(journal, [b"%d" % index])
        journal.settle()
    journal.put_snapshot(3, b"old")
    journal.put_snapshot(6, b"new")
    journal.compact(9)
    journal.settle()
    assert [position for position, _ in files.snapshots(tmp_path)] == [6]
    assert list(replay(journal)) == [Entry(index + 1, b"%d" % index) for index in range(6, 9)]
    kept = [begun(path).first for _, path in files.segments(tmp_path)]
    assert [first for first in kept if first] == [7, 8, 9]
    journal.close()
    assert journal.trouble == []


def test_a_record_cannot_be_lost_between_failed_and_repeated_writes(tmp_path: Path) -> None:
    limited = """
import resource, signal, sys
from pathlib import Path
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.file_journal import FileJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
journal = FileJournal(Path(sys.argv[1]), 7)
kept = 0
while kept < 30:
    journal.append(journal.position, [b"%d" % (kept + 1)]); kept += 1
journal.settle()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
failures = 0
while not failures:
    try:
        kept = journal.append(kept, [b"%d" % (kept + k + 1) * 2000 for k in range(5)])
    except JournalError as error:
        failures += 1; print(error)
assert journal.position == kept, (journal.position, kept)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, hard))
for _ in range(5):
    try:
        journal.append(journal.position, [b"lost" * 4000])
        raise SystemExit("a write above the limit went through")
    except JournalError:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for _ in range(30):
    journal.append(journal.position, [b"%d" % (kept + 1)]); kept += 1
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
        found = list(replay(read(directory)))
        assert [entry.position for entry in found] == list(range(1, int(kept) + 1))
        for position, record in found:
            assert record.startswith(b"%d" % position)


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, EPOCH)
    tmp_path.rmdir()
    with pytest.raises(JournalError, match="cannot be read"):
        journal.append(0, [b"one"])
    tmp_path.mkdir()
    write(journal, [b"one"])
    assert list(replay(journal)) == [Entry(1, b"one")]
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
    journal = FileJournal(small_disk, EPOCH, segment_bytes=200_000)
    write(journal, [b"1"])
    journal.settle()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    kept = 1
    failures: list[str] = []
    while len(failures) < 5:
        try:
            write(journal, [b"%d" % (kept + index + 1) * 3000 for index in range(3)])
            kept += 3
        except JournalError as error:
            failures.append(str(error))
        assert journal.position == kept
    assert all("disk" in text or "space" in text for text in failures), failures
    assert [entry.position for entry in replay(journal)] == list(range(1, kept + 1))
    ballast.unlink()
    for _ in range(20):
        write(journal, [b"%d" % (kept + 1) * 3000])
        kept += 1
    journal.close()
    found = list(replay(read(small_disk)))
    assert [entry.position for entry in found] == list(range(1, kept + 1))
    assert all(record.startswith(b"%d" % position) for position, record in found)


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    journal = FileJournal(small_disk, EPOCH, segment_bytes=200_000)
    write(journal, [b"one"])
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert list(replay(read(small_disk))) == [Entry(1, b"one")]
    journal = FileJournal(small_disk, EPOCH, segment_bytes=200_000)
    for _ in range(3):
        with pytest.raises(JournalError, match="Read-only file system"):
            write(journal, [b"two"])
        assert journal.position == 1
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    write(journal, [b"two"])
    journal.close()
    assert list(replay(read(small_disk))) == [Entry(1, b"one"), Entry(2, b"two")]
