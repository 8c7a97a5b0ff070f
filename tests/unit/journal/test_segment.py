"""Segments of frames: what is torn, what is damaged, and what is left of a write that failed."""

import os
import struct
from pathlib import Path
from zlib import crc32

import pytest

from kvblock_service.journal import files
from kvblock_service.journal.chain import beginning, followed
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import Segment, Tail, begun
from tests.unit.journal.kept import replay, unacknowledge, write

EPOCH = 7
HEAD = 24


def read(directory: Path, *, host_died: bool = False) -> FileReader:
    return FileReader(directory, EPOCH, host_died=host_died)


def head(number: int = 1, first: int = 1, before: bytes = beginning(EPOCH)) -> bytes:
    packed = b"KVBH\2" + struct.pack("<QQQ", EPOCH, number, first) + before
    return packed + struct.pack("<I", crc32(packed))


def frame(first: int, count: int, body: bytes) -> bytes:
    head = b"KVBJ" + struct.pack("<QII", first, count, len(body))
    return head + struct.pack("<I", crc32(head + body)) + body


def written(directory: Path, *writes: list[bytes]) -> Path:
    """A directory whose process died when it had written these, before it acknowledged the last;
    its segment.
    """
    journal = FileJournal(directory, EPOCH)
    for records in writes:
        write(journal, records)
    journal.close()
    unacknowledge(directory)
    ((_, path),) = files.segments(directory)
    return path


def test_the_bytes_of_a_frame(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b""])
    one = frame(1, 1, b"\3\0\0\0one")
    assert path.read_bytes() == head() + one + frame(2, 2, b"\3\0\0\0two\0\0\0\0")


def test_every_length_of_a_torn_tail(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b"three"])
    whole = path.read_bytes()
    last = len(whole) - (HEAD + 7 + 9)
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        reader = read(tmp_path)
        assert list(replay(reader)) == [Entry(1, b"one")]
        assert reader.tails == ([Tail(path, size - last)] if size > last else [])
        # Space that the file system gave and nothing was written to, as a host leaves that died.
        path.write_bytes(whole[:size] + bytes(5000))
        assert list(replay(read(tmp_path, host_died=True))) == [Entry(1, b"one")]
        with pytest.raises(JournalDamaged, match=f"damaged in its last {size - last + 5000} bytes"):
            list(replay(read(tmp_path)))


def test_a_torn_tail_is_cut_once(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two"])
    os.truncate(path, path.stat().st_size - 1)
    journal = FileJournal(tmp_path, EPOCH)
    assert list(replay(journal)) == [Entry(1, b"one")]
    assert journal.tails == [Tail(path, HEAD + 6)]
    write(journal, [b"other"])
    journal.close()
    reader = read(tmp_path)
    assert list(replay(reader)) == [Entry(1, b"one"), Entry(2, b"other")]
    assert reader.tails == []


def test_a_first_frame_that_is_torn_makes_nothing_void(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two"])
    torn = files.segment_path(tmp_path, 2)
    torn.write_bytes(path.read_bytes()[:HEAD])
    assert begun(torn).first is None
    assert list(replay(read(tmp_path))) == [Entry(1, b"one"), Entry(2, b"two")]


def test_every_damaged_byte_before_the_last_frame_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    last = len(whole) - (HEAD + 8)
    for at in range(last):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged, match=path.name):
            list(replay(read(tmp_path)))


@pytest.mark.parametrize("last", [[b"two"], [b"two", b"", b"three"]])
def test_a_damaged_last_frame_is_a_torn_tail_only_where_the_host_may_have_died(
    tmp_path: Path, last: list[bytes]
) -> None:
    path = written(tmp_path, [b"one"], last)
    whole = path.read_bytes()
    for at in range(len(head()) + HEAD + 7, len(whole)):
        for bit in (0x01, 0x10, 0x80):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            assert list(replay(read(tmp_path, host_died=True))) == [Entry(1, b"one")]
            with pytest.raises(JournalDamaged, match="from record 2 on"):
                list(replay(read(tmp_path)))


def test_every_damaged_byte_before_the_last_frame_stops_a_start_after_the_host_died(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    for at in range(len(whole) - (HEAD + 8)):
        for bit in (0x01, 0x10, 0x80):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(JournalDamaged, match=path.name):
                list(replay(read(tmp_path, host_died=True)))


def test_damage_that_the_next_segment_makes_void_is_passed_over(tmp_path: Path) -> None:
    """A start that cut a tail may die before it is cut in the file."""
    path = written(tmp_path, [b"one"], [b"torn"])
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    following = head(2, 2, followed(beginning(EPOCH), [b"one"]))
    files.segment_path(tmp_path, 2).write_bytes(following + frame(2, 1, b"\3\0\0\0two"))
    assert list(replay(read(tmp_path))) == [Entry(1, b"one"), Entry(2, b"two")]


@pytest.mark.parametrize(
    "planted",
    [frame(2**40, 0, b""), frame(3, 0, b""), frame(3, 1, bytes(4)), frame(4, 1, bytes(4))],
)
@pytest.mark.parametrize("host_died", [False, True])
def test_a_torn_record_may_spell_a_frame(tmp_path: Path, planted: bytes, host_died: bool) -> None:
    path = written(tmp_path, [b"one"], [b"ids: " + planted + b" and more"])
    os.truncate(path, path.stat().st_size - 3)
    assert list(replay(read(tmp_path, host_died=host_died))) == [Entry(1, b"one")]


@pytest.mark.parametrize("planted", [frame(2**40, 1, bytes(4)), frame(2, 0, b"")])
def test_a_frame_that_cannot_be_there_is_none(tmp_path: Path, planted: bytes) -> None:
    """The head of the torn frame is gone, so nothing says how long it was."""
    path = written(tmp_path, [b"one"])
    with path.open("ab") as file:
        file.write(bytes(HEAD) + planted + bytes(9))
    assert list(replay(read(tmp_path, host_died=True))) == [Entry(1, b"one")]


def test_a_segment_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"])
    path.unlink()
    path.mkdir()
    with pytest.raises(JournalDamaged, match="it is a directory, not a regular file"):
        list(replay(read(tmp_path)))


def test_a_segment_of_an_unknown_format_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"])
    path.rename(path.with_suffix(".new"))
    with pytest.raises(JournalDamaged, match="a format that this program does not know"):
        list(replay(read(tmp_path)))


def test_a_segment_is_not_written_over(tmp_path: Path) -> None:
    path = files.segment_path(tmp_path, 1)
    path.write_bytes(b"somebody's")
    with pytest.raises(JournalError, match="cannot be made: File exists"):
        Segment(path, EPOCH, synced=False)
    assert path.read_bytes() == b"somebody's"
