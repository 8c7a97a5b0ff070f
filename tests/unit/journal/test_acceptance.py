"""What every journal promises, asked of each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, Journal
from kvblock_service.journal.memory import MemoryJournal

EPOCH = 77


class Kind(Protocol):
    """One implementation: `restart` gives what the process after this one would find."""

    journal: Journal

    def restart(self) -> None: ...

    def done(self) -> None: ...


class InMemory:
    def __init__(self, _: Path) -> None:
        self.journal: Journal = MemoryJournal(EPOCH)

    def restart(self) -> None:
        assert isinstance(self.journal, MemoryJournal)
        self.journal = self.journal.restarted()

    def done(self) -> None:
        self.journal.close()


class InFiles:
    durable_on = "process"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal: Journal = self.opened()

    def opened(self) -> FileJournal:
        # Small segments, so that every test crosses from one to the next.
        return FileJournal(self.directory, EPOCH, self.durable_on, segment_bytes=20_000)

    def restart(self) -> None:
        self.journal.close()
        self.journal = self.opened()

    def done(self) -> None:
        assert isinstance(self.journal, FileJournal)
        self.journal.close()
        assert self.journal.trouble == []


class InSyncedFiles(InFiles):
    durable_on = "host"


KINDS = [InMemory, InFiles, InSyncedFiles]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    made: Kind = request.param(tmp_path)
    yield made
    made.done()


def entries(first: int, *records: bytes) -> list[Entry]:
    return [Entry(first + index, record) for index, record in enumerate(records)]


def test_a_new_journal_is_empty(kind: Kind) -> None:
    assert kind.journal.server_epoch == EPOCH
    assert kind.journal.position == 0
    assert kind.journal.snapshot() is None
    assert kind.journal.snapshot_position == 0
    assert list(kind.journal.replay()) == []


def test_records_come_back_in_order_with_their_positions(kind: Kind) -> None:
    kind.journal.write([b"one"])
    kind.journal.write([b"two", b"", b"\x00\xff"])
    assert kind.journal.position == 4
    expected = entries(1, b"one", b"two", b"", b"\x00\xff")
    assert list(kind.journal.replay()) == expected
    kind.restart()
    assert list(kind.journal.replay()) == expected
    assert kind.journal.position == 4


def test_positions_go_on_after_a_restart(kind: Kind) -> None:
    kind.journal.write([b"one"])
    for _ in range(3):
        kind.restart()
        assert list(kind.journal.replay()) == entries(1, b"one")
    kind.journal.write([b"two"])
    kind.restart()
    assert list(kind.journal.replay()) == entries(1, b"one", b"two")
    assert kind.journal.position == 2


def test_a_write_needs_no_replay_before(kind: Kind) -> None:
    kind.journal.write([b"one"])
    kind.restart()
    kind.journal.write([b"two"])
    assert kind.journal.position == 2
    assert list(kind.journal.replay()) == entries(1, b"one", b"two")


def test_nothing_to_write_is_no_write(kind: Kind) -> None:
    kind.journal.write([])
    kind.journal.write([b"one"])
    kind.journal.write([])
    assert kind.journal.position == 1
    kind.restart()
    assert list(kind.journal.replay()) == entries(1, b"one")


def test_records_of_any_size(kind: Kind) -> None:
    records = [bytes([size % 251]) * size for size in (0, 1, 4000, 4096, 100_000, 3)]
    for record in records:
        kind.journal.write([record])
    kind.journal.write(records)
    assert list(kind.journal.replay()) == entries(1, *records, *records)
    kind.restart()
    assert list(kind.journal.replay()) == entries(1, *records, *records)


def test_a_snapshot_stands_for_the_records_up_to_its_position(kind: Kind) -> None:
    kind.journal.write([b"one", b"two", b"three"])
    kind.journal.put_snapshot(2, b"both")
    assert kind.journal.snapshot() == b"both"
    assert kind.journal.snapshot_position == 2
    assert list(kind.journal.replay()) == entries(3, b"three")
    kind.restart()
    assert kind.journal.snapshot() == b"both"
    assert list(kind.journal.replay()) == entries(3, b"three")
    assert kind.journal.position == 3


def test_the_newest_snapshot_counts(kind: Kind) -> None:
    kind.journal.write([b"one", b"two"])
    kind.journal.put_snapshot(1, b"old")
    kind.journal.put_snapshot(2, b"new")
    kind.restart()
    assert kind.journal.snapshot() == b"new"
    assert list(kind.journal.replay()) == []
    assert kind.journal.position == 2
    kind.journal.write([b"three"])
    assert list(kind.journal.replay()) == entries(3, b"three")


def test_truncation_changes_nothing_that_counts(kind: Kind) -> None:
    for index in range(50):
        kind.journal.write([b"%d" % index * 500])
    kind.journal.put_snapshot(30, b"thirty")
    kind.journal.truncate(50)
    expected = entries(31, *(b"%d" % index * 500 for index in range(30, 50)))
    assert list(kind.journal.replay()) == expected
    kind.journal.write([b"more"])
    kind.restart()
    assert list(kind.journal.replay()) == [*expected, Entry(51, b"more")]
    assert kind.journal.position == 51


def test_truncation_without_a_snapshot_drops_nothing(kind: Kind) -> None:
    kind.journal.write([b"one", b"two"])
    kind.journal.truncate(2)
    kind.restart()
    assert list(kind.journal.replay()) == entries(1, b"one", b"two")
