"""The threads of a journal: a write on its way, a rotation that is asked for, the maintenance."""

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.journal import files
from kvblock_service.journal import maintenance as maintenance_module
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, JournalError
from kvblock_service.journal.maintenance import Maintenance
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import Segment, begun
from tests.unit.journal.kept import replay, write

EPOCH = 7
PATIENCE = 60


class Held:
    """Holds a call up, from when it has begun until `go` is set."""

    def __init__(self, really: Callable[..., Any]) -> None:
        self.really = really
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return self.really(*arguments, **named)


class Watched:
    """A lock that tells when somebody has to wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waited_for = threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.waited_for.set()
            assert self.lock.acquire(timeout=PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def aside(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive()


def held_write(journal: FileJournal, record: bytes) -> tuple[Held, threading.Thread]:
    """A write in a thread that has come to the file, and waits there."""
    segment = journal._segment
    assert segment is not None
    held = Held(segment.append)
    segment.append = held  # type: ignore[method-assign]
    thread = aside(lambda: write(journal, [record]))
    assert held.begun.wait(PATIENCE)
    return held, thread


def test_a_rotation_waits_for_the_write_that_is_on_its_way(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, EPOCH, "host")
    write(journal, [b"one"])
    journal.settle()
    held, writing = held_write(journal, b"two")
    for _ in range(3):
        assert journal.rotate() is None
    journal.settle()
    assert journal.sealed_position == 0
    held.go.set()
    ended(writing)
    # The write went on in the next segment, and this rotation is told once.
    write(journal, [b"three"])
    assert journal.rotate() == 2
    journal.settle()
    assert journal.sealed_position == 2
    assert journal.rotate() == 3
    journal.put_snapshot(2, b"both")
    journal.compact(2)
    journal.close()
    assert journal.trouble == []
    assert list(replay(FileReader(tmp_path, EPOCH))) == [Entry(3, b"three")]
    assert len(files.segments(tmp_path)) == 1


def test_a_rotation_that_comes_too_early_comes_with_a_later_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path, EPOCH, "host")
    held = Held(Maintenance._make_ready)
    monkeypatch.setattr(Maintenance, "_make_ready", lambda maintenance: held(maintenance))
    write(journal, [b"one"])
    assert journal.rotate() is None
    write(journal, [b"two"])
    assert journal.rotate() is None
    held.go.set()
    journal.settle()
    write(journal, [b"three"])
    write(journal, [b"four"])
    assert journal.rotate() == 3
    journal.close()
    assert journal.trouble == []


def test_a_close_waits_for_the_write_that_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path, EPOCH, "host")
    write(journal, [b"one"])
    watched = Watched()
    monkeypatch.setattr(journal, "_writing", watched)
    held, writing = held_write(journal, b"two")
    closing = aside(journal.close)
    assert watched.waited_for.wait(PATIENCE)
    held.go.set()
    ended(writing)
    ended(closing)
    assert list(replay(FileReader(tmp_path, EPOCH))) == [Entry(1, b"one"), Entry(2, b"two")]
    # Somebody else may have the directory now.
    with pytest.raises(JournalError, match="was closed"):
        write(journal, [b"three"])
    assert len(files.segments(tmp_path)) == 1


def test_segments_are_used_in_the_order_of_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write fails while the maintenance makes the next segment, and is tried again meanwhile."""
    journal = FileJournal(tmp_path, EPOCH)
    write(journal, [b"one"])
    journal.settle()
    maintenance = journal._maintenance
    making = Watched()
    monkeypatch.setattr(maintenance, "_making", making)
    make = Held(Segment)
    monkeypatch.setattr(maintenance_module, "Segment", make)
    # The one that was ready is in use from here, and the maintenance makes the one after it.
    assert journal.rotate() == 1
    assert make.begun.wait(PATIENCE)
    failing(journal)
    with pytest.raises(JournalError, match="full"):
        write(journal, [b"two"])
    writing = aside(lambda: write(journal, [b"two"]))
    assert making.waited_for.wait(PATIENCE)
    make.go.set()
    ended(writing)
    for number, record in enumerate((b"three", b"four", b"five"), start=2):
        journal.settle()
        assert journal.rotate() == number
        write(journal, [record])
    found = FileReader(tmp_path, EPOCH)
    expected = [b"one", b"two", b"three", b"four", b"five"]
    assert [entry.record for entry in replay(found)] == expected
    journal.close()
    firsts = [begun(path).first for _, path in files.segments(tmp_path)]
    assert firsts == sorted(first for first in firsts if first)


def failing(journal: FileJournal) -> None:
    """Let the next write fail, as on a full disk."""

    def fail(first: int, records: Sequence[bytes]) -> None:
        del first, records
        raise JournalError("the disk is full")

    segment: Segment | None = journal._segment
    assert segment is not None
    segment.append = fail  # type: ignore[method-assign]


def test_a_number_is_not_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment in which nothing was kept is removed, and its number is not used again."""
    journal = FileJournal(tmp_path, EPOCH)
    # As on a full disk: none is made ready.
    monkeypatch.setattr(journal._maintenance, "_not_before", math.inf)
    journal.begin()
    for _ in range(3):
        failing(journal)
        with pytest.raises(JournalError):
            write(journal, [b"one"])
        journal.settle()
        assert files.segments(tmp_path) == []
        journal.begin()
    write(journal, [b"one"])
    assert [number for number, _ in files.segments(tmp_path)] == [4]
    journal.close()
    assert list(replay(FileReader(tmp_path, EPOCH))) == [Entry(1, b"one")]


def test_a_bug_of_the_maintenance_is_told_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(tmp_path, EPOCH)
    write(journal, [b"one"])
    journal.settle()
    assert journal.bug is None
    bug = ValueError("a bug")

    def broken(*_: object) -> None:
        raise bug

    monkeypatch.setattr(Maintenance, "_drop", broken)
    journal.compact(1)
    journal.compact(1)
    ended(aside(journal.settle))
    assert journal.bug is bug
    assert journal.trouble == []
    write(journal, [b"two"])
    ended(aside(journal.close))
    assert list(replay(FileReader(tmp_path, EPOCH))) == [Entry(1, b"one"), Entry(2, b"two")]
