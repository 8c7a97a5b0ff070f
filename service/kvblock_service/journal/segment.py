"""A segment: one file of a journal's directory that records are appended to.

Rules:
- A segment is written by one process only: each process begins with a new one. Readers may look at
  it at any moment, and change nothing.
- A file is a head and a row of frames. The head has the version of the format, what `Head` has, and
  a CRC-32 of all that; it is written together with the first frame, and until then the file is
  empty. A file that begins with a frame was written before there were heads.
- A frame holds the records of one append: a mark, the position of the first one, how many they are,
  the length of what follows, a CRC-32 of all that and of what follows; then each record behind its
  length. Numbers are little-endian. It is written by one call of the system. When that fails, the
  file is cut where the frame began.
- Its records are in order and without a gap. Those from a position on are void when a later segment
  begins at that position: they belong to a write that failed, or to a tail that was cut.
- Bytes that are no sound frame are a torn tail when no sound frame of a later position follows
  them, and damage otherwise. What follows begins behind the frame that was begun there, if its head
  and the lengths of its records agree: the records are an engine's, and may spell frames. It is the
  tail of a process that died, `cut_short`, when the file ends before that frame does.
- No space is reserved: to make a file longer takes less time than to write over what it has.
- A reading raises JournalDamaged when a segment cannot be read, FileNotFoundError when it is gone.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from kvblock_service.journal.files import segment_number
from kvblock_service.journal.interface import Entry, JournalDamaged, JournalError
from kvblock_service.journal.regular import failing, open_regular, read_regular, reading

_VERSION = 2
_MAGIC = b"KVBH"
_FILE_HEAD = struct.Struct("<4sBQQQ4s")
_MARK = b"KVBJ"
_HEAD = struct.Struct("<4sQII")
_WORD = struct.Struct("<I")
_FRAME_MIN = _HEAD.size + _WORD.size
HEAD_BYTES = _FILE_HEAD.size + _WORD.size
"""The length of a file's head."""


class Tail(NamedTuple):
    """Bytes at the end of a segment that belong to no whole append.

    `cut_short`: they are the beginning of one, as far as can be known, and not one that has its
    full length and was changed later.
    """

    path: Path
    size: int
    cut_short: bool = True


class Head(NamedTuple):
    """What a segment is: `number` is that in its name, `first` the position of its first record.

    `chain`: the chain checksum before that record, which is that at the end of its predecessor;
    `version`: that of the segment's format.
    """

    server_epoch: int
    number: int
    first: int
    chain: bytes
    version: int = _VERSION


class Begun(NamedTuple):
    """How a segment begins: `first` is the position of its first record; None: it has none."""

    first: int | None = None
    head: Head | None = None


class Segment:
    """A segment that is written to.

    `filled` is its length in bytes; `last` is the position of its last record, 0 before the first.
    `chain` is the chain checksum before its first record, and is set before the first append.
    """

    def __init__(self, path: Path, server_epoch: int, *, synced: bool) -> None:
        """Make an empty file, whose number is the one in `path`; `synced`: it survives the host.

        Raises JournalError when it cannot be made.
        """
        self.path = path
        self.filled = 0
        self.last = 0
        self.chain = b""
        self._server_epoch = server_epoch
        self._synced = synced
        with failing("made", path):
            self._file = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def append(self, first: int, records: Sequence[bytes]) -> None:
        """Append a frame of records, the first of which gets that position.

        Raises JournalError when nothing was written; the segment is to be closed then.
        """
        data = _frame(first, records)
        if not self.filled:
            number = segment_number(self.path)
            data = _file_head(Head(self._server_epoch, number, first, self.chain)) + data
        try:
            written = os.write(self._file, data)
            if written != len(data):
                _write_rest(self._file, data[written:])
            if self._synced:
                os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self.filled)
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error
        self.filled += len(data)
        self.last = first + len(records) - 1

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._file)


def begun(path: Path) -> Begun:
    """How a segment begins: what its head says, or else the position in a sound first frame."""
    with reading(path), os.fdopen(open_regular(path), "rb") as file:
        start = file.read(max(HEAD_BYTES, _FRAME_MIN))
        head = _read_file_head(path, start)
        if head is not None:
            return Begun(head.first, head)
        if not start.startswith(_MARK) or len(start) < _FRAME_MIN:
            return Begun()
        file.seek(0)
        data = file.read(_FRAME_MIN + _HEAD.unpack_from(start)[-1])
    frame = _read(data, 0)
    return Begun() if frame is None else Begun(frame.first)


def entries(path: Path, after: int, tails: list[Tail]) -> Iterator[Entry]:
    """The records of a segment behind a position; adds to `tails` what is torn."""
    with reading(path):
        data = read_regular(path)
    head = _read_file_head(path, data)
    end, last = (HEAD_BYTES, head.first - 1) if head else (0, 0)
    while (frame := _read(data, end)) is not None:
        last = frame.last
        if last > after:
            yield from _records(data, frame, after)
        end = frame.end
    if end < len(data):
        tails.append(_tail(path, data, end, last, after))


def cut(path: Path, torn: int) -> None:
    """Cut a torn tail of so many bytes, or raise JournalError."""
    with failing("cut", path), os.fdopen(open_regular(path, os.O_WRONLY), "wb") as file:
        os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - torn)


def _write_rest(file: int, data: bytes) -> None:
    """Fail as what is short of a full disk or a limit: a second call says which."""
    os.write(file, data)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Frame(NamedTuple):
    """A sound frame: its first and last position, and where its records begin and end."""

    first: int
    last: int
    start: int
    end: int


def _file_head(head: Head) -> bytes:
    data = _FILE_HEAD.pack(_MAGIC, head.version, *head[:4])
    return data + _WORD.pack(crc32(data))


def _read_file_head(path: Path, data: bytes) -> Head | None:
    """The sound head that a file begins with; raises JournalDamaged for an unknown version."""
    if len(data) < HEAD_BYTES or not data.startswith(_MAGIC):
        return None
    (checksum,) = _WORD.unpack_from(data, _FILE_HEAD.size)
    if crc32(data[: _FILE_HEAD.size]) != checksum:
        return None
    _, version, server_epoch, number, first, chain = _FILE_HEAD.unpack_from(data)
    if not 1 <= version <= _VERSION:
        raise JournalDamaged(f"{path} has version {version}; this program reads 1 to {_VERSION}")
    return Head(server_epoch, number, first, chain, version)


def _frame(first: int, records: Sequence[bytes]) -> bytes:
    if len(records) == 1:
        # Most come alone.
        body = _WORD.pack(len(records[0])) + records[0]
    else:
        body = b"".join([part for record in records for part in (_WORD.pack(len(record)), record)])
    head = _HEAD.pack(_MARK, first, len(records), len(body))
    return b"".join((head, _WORD.pack(crc32(body, crc32(head))), body))


def _read(data: bytes, at: int) -> _Frame | None:
    """The sound frame that begins there."""
    if len(data) - at < _FRAME_MIN:
        return None
    mark, first, count, size = _HEAD.unpack_from(data, at)
    start = at + _FRAME_MIN
    end = start + size
    if mark != _MARK or end > len(data):
        return None
    (checksum,) = _WORD.unpack_from(data, at + _HEAD.size)
    view = memoryview(data)
    if crc32(view[start:end], crc32(view[at : at + _HEAD.size])) != checksum:
        return None
    return _Frame(first, first + count - 1, start, end)


def _records(data: bytes, frame: _Frame, after: int) -> Iterator[Entry]:
    at = frame.start
    for position in range(frame.first, frame.last + 1):
        (size,) = _WORD.unpack_from(data, at)
        at += _WORD.size
        if position > after:
            yield Entry(position, data[at : at + size])
        at += size


def _tail(path: Path, data: bytes, end: int, last: int, after: int) -> Tail:
    """What is behind the last sound frame, which ends at `end`.

    Raises JournalDamaged when that has a sound frame of a later position.
    """
    ends = _frame_end(data, end, last, after) if end else _first_frame_end(data, after)
    behind = end + 1 if ends is None else ends
    if _has_later(data, behind, end, last, after):
        raise JournalDamaged(f"{path} is damaged at byte {end}, and sound records follow")
    return Tail(path, len(data) - end, ends is not None and ends > len(data))


def _first_frame_end(data: bytes, after: int) -> int | None:
    """As `_frame_end`, for a file without a sound head and without a sound first frame."""
    if data.startswith(_MARK[: len(data)]):
        return _frame_end(data, 0, 0, after)
    # The head is written together with the first frame.
    return HEAD_BYTES if len(data) < HEAD_BYTES and _MAGIC.startswith(data[:4]) else None


def _frame_end(data: bytes, at: int, last: int, after: int) -> int | None:
    """Where the frame was to end that was begun there; None: those bytes are no beginning of one.

    `last` is the position of the last record before it in its file, and 0 when it is the first
    frame; then that of the last record anywhere is at least `after`.
    """
    if len(data) - at < _FRAME_MIN:
        mark = data[at : at + len(_MARK)]
        return at + _FRAME_MIN if _MARK.startswith(mark) else None
    mark, first, count, size = _HEAD.unpack_from(data, at)
    follows = first == last + 1 if last else 0 < first <= after + 1
    if mark != _MARK or not follows or not count:
        return None
    record = at + _FRAME_MIN
    end: int = record + size
    for _ in range(count):
        if record + _WORD.size > end:
            return None
        if record + _WORD.size > len(data):
            return end
        record += _WORD.size + _WORD.unpack_from(data, record)[0]
    return end if record == end else None


def _has_later(data: bytes, start: int, damaged: int, last: int, after: int) -> bool:
    """Whether a sound frame of a later position begins at `start` or behind.

    The sound ones before end at `damaged`; `last` and `after` are as in `_frame_end`. A position is
    plausible if the records between find room between the two places.
    """
    at = start - 1
    while (at := data.find(_MARK, at + 1)) >= 0:
        frame = _read(data, at)
        highest = (last or after) + 1 + (at - damaged) // _WORD.size
        if frame is not None and frame.last >= frame.first and last < frame.first <= highest:
            return True
    return False
