"""What every journal promises, asked of each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from kvblock_service.core.commands import Allocate, Stamp
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, Journal, JournalError, PositionTaken
from kvblock_service.journal.recovery import recover
from tests.memory_journal import MemoryJournal
from tests.unit.journal.kept import BOUNDS, FLOOR, begin, carry_out, replay, state_of, write

EPOCH = FLOOR


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
    assert list(replay(kind.journal)) == []


def test_records_come_back_in_order_with_their_positions(kind: Kind) -> None:
    write(kind.journal, [b"one"])
    write(kind.journal, [b"two", b"", b"\x00\xff"])
    assert kind.journal.position == 4
    expected = entries(1, b"one", b"two", b"", b"\x00\xff")
    assert list(replay(kind.journal)) == expected
    kind.restart()
    assert list(replay(kind.journal)) == expected
    assert kind.journal.position == 4


def test_positions_go_on_after_a_restart(kind: Kind) -> None:
    write(kind.journal, [b"one"])
    for _ in range(3):
        kind.restart()
        assert list(replay(kind.journal)) == entries(1, b"one")
    write(kind.journal, [b"two"])
    kind.restart()
    assert list(replay(kind.journal)) == entries(1, b"one", b"two")
    assert kind.journal.position == 2


def test_a_write_needs_no_replay_before(kind: Kind) -> None:
    write(kind.journal, [b"one"])
    kind.restart()
    write(kind.journal, [b"two"])
    assert kind.journal.position == 2
    assert list(replay(kind.journal)) == entries(1, b"one", b"two")


def test_nothing_to_write_is_no_write(kind: Kind) -> None:
    write(kind.journal, [])
    write(kind.journal, [b"one"])
    write(kind.journal, [])
    assert kind.journal.position == 1
    kind.restart()
    assert list(replay(kind.journal)) == entries(1, b"one")


def test_an_append_follows_the_last_record_and_nothing_else(kind: Kind) -> None:
    kind.journal.begin()
    assert kind.journal.append(0, [b"one", b"two"]) == 2
    for after in (0, 1, 3):
        with pytest.raises(PositionTaken, match=f"follow record {after}, but the last one is 2"):
            kind.journal.append(after, [b"other"])
    assert kind.journal.append(2, [b"three"]) == 3
    assert list(kind.journal.read(0)) == entries(1, b"one", b"two", b"three")


def test_records_are_read_behind_any_position(kind: Kind) -> None:
    write(kind.journal, [b"one", b"two"])
    write(kind.journal, [b"three"])
    for after in range(4):
        expected = entries(1, b"one", b"two", b"three")[after:]
        assert list(kind.journal.read(after)) == expected
        assert list(kind.journal.read(after, 2)) == [one for one in expected if one.position < 3]


def test_nothing_is_written_after_a_close(kind: Kind) -> None:
    write(kind.journal, [b"one"])
    kind.journal.close()
    with pytest.raises(JournalError, match="closed"):
        kind.journal.append(1, [b"two"])
    kind.restart()
    assert list(replay(kind.journal)) == entries(1, b"one")


def test_it_tells_how_it_is(kind: Kind) -> None:
    write(kind.journal, [b"one", b"three"])
    assert kind.journal.bytes_written == 8
    assert kind.journal.space_taken >= 8
    assert kind.journal.bug is None
    assert kind.journal.trouble == []


def test_a_snapshot_is_made_of_everything_so_far(kind: Kind) -> None:
    pool = begin(kind.journal)
    for number in range(5):
        carry_out(kind.journal, pool, Allocate("a", 0, "", number, 2), Stamp(1, 2, ""))
    made = None
    snapshots = kind.journal.snapshots(BOUNDS.request_ids_max)
    try:
        snapshots.prepare()
        while not snapshots.begin():
            write(kind.journal, [])
        while made is None:
            made = snapshots.made()
    finally:
        snapshots.stop()
    assert (made.position, made.problem) == (6, {})
    kind.journal.compact(6)
    assert kind.journal.snapshot_position == 6
    kind.restart()
    recovered = recover(kind.journal, BOUNDS)
    assert (recovered.snapshot_position, recovered.records) == (6, 0)
    assert state_of(recovered.state.pools[0].pool) == state_of(pool)


def test_records_of_any_size(kind: Kind) -> None:
    records = [bytes([size % 251]) * size for size in (0, 1, 4000, 4096, 100_000, 3)]
    for record in records:
        write(kind.journal, [record])
    write(kind.journal, records)
    assert list(replay(kind.journal)) == entries(1, *records, *records)
    kind.restart()
    assert list(replay(kind.journal)) == entries(1, *records, *records)


def test_a_snapshot_stands_for_the_records_up_to_its_position(kind: Kind) -> None:
    write(kind.journal, [b"one", b"two", b"three"])
    kind.journal.put_snapshot(2, b"both")
    assert kind.journal.snapshot() == b"both"
    assert kind.journal.snapshot_position == 2
    assert list(replay(kind.journal)) == entries(3, b"three")
    kind.restart()
    assert kind.journal.snapshot() == b"both"
    assert list(replay(kind.journal)) == entries(3, b"three")
    assert kind.journal.position == 3


def test_the_newest_snapshot_counts(kind: Kind) -> None:
    write(kind.journal, [b"one", b"two"])
    kind.journal.put_snapshot(1, b"old")
    kind.journal.put_snapshot(2, b"new")
    kind.restart()
    assert kind.journal.snapshot() == b"new"
    assert list(replay(kind.journal)) == []
    assert kind.journal.position == 2
    write(kind.journal, [b"three"])
    assert list(replay(kind.journal)) == entries(3, b"three")


def test_truncation_changes_nothing_that_counts(kind: Kind) -> None:
    for index in range(50):
        write(kind.journal, [b"%d" % index * 500])
    kind.journal.put_snapshot(30, b"thirty")
    kind.journal.compact(50)
    expected = entries(31, *(b"%d" % index * 500 for index in range(30, 50)))
    assert list(replay(kind.journal)) == expected
    write(kind.journal, [b"more"])
    kind.restart()
    assert list(replay(kind.journal)) == [*expected, Entry(51, b"more")]
    assert kind.journal.position == 51


def test_truncation_without_a_snapshot_drops_nothing(kind: Kind) -> None:
    write(kind.journal, [b"one", b"two"])
    kind.journal.compact(2)
    kind.restart()
    assert list(replay(kind.journal)) == entries(1, b"one", b"two")
