"""SQLite segments: what is torn, and what is damaged."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.journal import files
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, JournalDamaged
from kvblock_service.journal.keeper import Keeper
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.sqlite_format import FRAME_BYTES as FRAME
from kvblock_service.journal.sqlite_format import PAGE_BYTES, WAL_HEAD_BYTES, SqliteFormat
from tests.unit.journal.kept import unacknowledge

EPOCH = 7


def read(directory: Path) -> FileReader:
    return FileReader(directory, EPOCH)


def end_of(wal: Path) -> int:
    """Where the zeros begin that nothing was written to."""
    data = wal.read_bytes()
    starts = range(WAL_HEAD_BYTES, len(data), FRAME)
    return next((at for at in starts if not any(data[at : at + 24])), len(data))


def crashed(directory: Path, *records: bytes) -> Path:
    """A directory whose process died after writing these, one commit each; its last WAL."""
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from kvblock_service.journal.file_journal import FileJournal\n"
        f"journal = FileJournal(Path(sys.argv[1]), {EPOCH}, kind='sqlite')\n"
        f"for record in {list(records)!r}: journal.write([record])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, directory], check=False)
    assert ended.returncode == -signal.SIGKILL
    unacknowledge(directory)
    wals = [Path(f"{path}-wal") for _, path in files.segments(directory)]
    return max((wal for wal in wals if wal.exists()), key=end_of)


def test_a_torn_tail_is_cut(tmp_path: Path) -> None:
    wal = crashed(tmp_path, b"one", b"two", b"three")
    os.truncate(wal, end_of(wal) - 100)
    journal = FileJournal(tmp_path, EPOCH, kind="sqlite")
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
    for cut in (1, 8, 23, 24, 25, FRAME - 24, FRAME - 1, FRAME):
        wal.write_bytes(whole[:-cut])
        assert [entry.record for entry in read(tmp_path).replay()] == [b"one", b"two"]
        wal.write_bytes(whole[:-cut] + bytes(cut + 100_000))
        reader = FileReader(tmp_path, EPOCH, host_died=cut < 8)
        assert [entry.record for entry in reader.replay()] == [b"one", b"two"]


def test_a_damaged_last_commit_is_a_torn_tail_only_where_the_host_may_have_died(
    tmp_path: Path,
) -> None:
    wal = crashed(tmp_path, b"one", b"two", b"three")
    damaged = bytearray(wal.read_bytes())
    damaged[end_of(wal) - 9] ^= 1
    wal.write_bytes(damaged)
    with pytest.raises(JournalDamaged, match=r"-wal is damaged in its last 4120 bytes"):
        list(read(tmp_path).replay())
    reader = FileReader(tmp_path, EPOCH, host_died=True)
    assert [entry.record for entry in reader.replay()] == [b"one", b"two"]


def test_damage_in_the_middle_of_a_wal_is_no_torn_tail(tmp_path: Path) -> None:
    wal = crashed(tmp_path, *(b"%d" % index * 900 for index in range(20)))
    whole = wal.read_bytes()
    frames = (end_of(wal) - WAL_HEAD_BYTES) // FRAME
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
    journal = FileJournal(directory, EPOCH, kind="sqlite")
    for index in range(count):
        journal.write([b"%d" % index * 900])
    journal.close()
    ((_, path),) = files.segments(directory)
    return path


def test_a_damaged_database_stops_the_start(tmp_path: Path) -> None:
    path = closed(tmp_path, 30)
    whole = path.read_bytes()
    sound = list(read(tmp_path).replay())
    for at in (0, 100, PAGE_BYTES, 2 * PAGE_BYTES):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged, match=path.name):
            assert list(read(tmp_path).replay()) == sound, at
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JournalDamaged, match=path.name):
        list(read(tmp_path).replay())


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_database_that_is_gone_beside_its_wal_stops_the_start(
    tmp_path: Path, content: bytes
) -> None:
    wal = crashed(tmp_path, b"one", b"two")
    path = wal.with_name(wal.name.removesuffix("-wal"))
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match=path.name):
        list(read(tmp_path).replay())
    assert wal.exists()


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
        keeper = Keeper(tmp_path, SqliteFormat(), 0, EPOCH, synced=False)
        keeper.found([(Path(str(wal).removesuffix("-wal")), 20)], [])
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
    shrink, closing = SqliteFormat.shrink, threading.Event()

    def wait(kind: SqliteFormat, path: Path, torn: int) -> None:
        assert closing.wait(60)
        shrink(kind, path, torn)

    monkeypatch.setattr(SqliteFormat, "shrink", wait)
    journal = FileJournal(tmp_path, EPOCH, kind="sqlite")
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
            if arguments[0].startswith(("PRAGMA journal_mode=WAL", "CREATE TABLE")):
                seen.append(files.segments(tmp_path))
            return super().execute(*arguments)

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Watched))
    journal = FileJournal(tmp_path, EPOCH, kind="sqlite", segment_bytes=1)
    journal.begin()
    journal.settle()
    # The first segment, then the one that is made ready.
    first = files.segments(tmp_path)[:1]
    both = files.segments(tmp_path)
    assert seen == [[], [], [], first, first, first, first, both]
    journal.close()
    assert list(tmp_path.glob("*partial*")) == []
