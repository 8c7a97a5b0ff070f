"""Segments of frames: what is torn, what is damaged, and what is left of a write that failed."""

import os
import struct
from pathlib import Path
from zlib import crc32

import pytest

from kvblock_service.journal import files
from kvblock_service.journal.append_format import AppendFormat
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.segment import Tail

EPOCH = 7
HEAD = 24


def read(directory: Path) -> FileReader:
    return FileReader(directory, EPOCH)


def written(directory: Path, *writes: list[bytes]) -> Path:
    """A directory whose process wrote these; its segment."""
    journal = FileJournal(directory, EPOCH, kind="append")
    for records in writes:
        journal.write(records)
    journal.close()
    ((_, path),) = files.segments(directory)
    return path


def test_the_bytes_of_a_frame(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b""])
    body = b"\3\0\0\0two\0\0\0\0"
    head = b"KVBJ" + struct.pack("<QII", 2, 2, len(body))
    frame = head + struct.pack("<I", crc32(head + body)) + body
    assert path.read_bytes()[HEAD + 7 :] == frame


def test_every_length_of_a_torn_tail(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b"three"])
    whole = path.read_bytes()
    last = len(whole) - (HEAD + 7 + 9)
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        reader = read(tmp_path)
        assert list(reader.replay()) == [Entry(1, b"one")]
        assert reader.tails == ([Tail(path, size - last)] if size > last else [])
        # Space that the file system gave and nothing was written to.
        path.write_bytes(whole[:size] + bytes(5000))
        assert list(read(tmp_path).replay()) == [Entry(1, b"one")]


def test_a_torn_tail_is_cut_once(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two"])
    os.truncate(path, path.stat().st_size - 1)
    journal = FileJournal(tmp_path, EPOCH, kind="append")
    assert list(journal.replay()) == [Entry(1, b"one")]
    assert journal.tails == [Tail(path, HEAD + 6)]
    journal.write([b"other"])
    journal.close()
    reader = read(tmp_path)
    assert list(reader.replay()) == [Entry(1, b"one"), Entry(2, b"other")]
    assert reader.tails == []


def test_a_first_frame_that_is_torn_makes_nothing_void(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two"])
    torn = files.segment_path(tmp_path, 2, "log")
    torn.write_bytes(path.read_bytes()[: HEAD + 5])
    assert AppendFormat().first_position(torn) is None
    assert list(read(tmp_path).replay()) == [Entry(1, b"one"), Entry(2, b"two")]


def test_every_damaged_byte_before_the_last_frame_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two", b"three"], [b"four"])
    whole = path.read_bytes()
    last = len(whole) - (HEAD + 8)
    for at in range(last):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged, match=path.name):
            list(read(tmp_path).replay())


def test_a_damaged_last_frame_is_a_torn_tail(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"], [b"two"])
    whole = path.read_bytes()
    for at in range(HEAD + 7, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        assert list(read(tmp_path).replay()) == [Entry(1, b"one")]


def test_a_segment_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"])
    path.unlink()
    path.mkdir()
    with pytest.raises(JournalDamaged, match="cannot be read: Is a directory"):
        list(read(tmp_path).replay())


def test_a_segment_of_an_unknown_format_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, [b"one"])
    path.rename(path.with_suffix(".new"))
    with pytest.raises(JournalDamaged, match="a format that this program does not know"):
        list(read(tmp_path).replay())


def test_a_segment_is_not_written_over(tmp_path: Path) -> None:
    path = files.segment_path(tmp_path, 1, "log")
    path.write_bytes(b"somebody's")
    with pytest.raises(JournalError, match="cannot be made: File exists"):
        AppendFormat().make(path, 0, synced=False)
    assert path.read_bytes() == b"somebody's"
