"""`end`: where a journal ended when its last append was acknowledged.

Rules:
- It has two slots with checksums of their own, written in turn: what a process leaves that dies
  while it writes one, or a damaged one, leaves the other.
- It is written after each append and before its acknowledgement, and never synced: so it is never
  ahead of the log, and only a host that dies leaves it behind by more than one append.
- It is written by a call of the system, not through a mapping: a process that writes to the mapping
  of a file that was cut, or that a full disk has no room for, is ended by that.
- Each process begins with a new file: a copy of the directory that was made with hard links stays.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from kvblock_service.journal import files
from kvblock_service.journal.interface import JournalDamaged, JournalError
from kvblock_service.journal.regular import failing, open_regular, read_regular, reading

NAME = "end"
SLOT_BYTES = 512
"""A slot has a sector of its own, which a disk writes whole."""
_READS = 3
_MAGIC = b"KVBE"
_SLOT = struct.Struct("<4sBQQ4s")
_CRC = struct.Struct("<I")
_VERSION = 1


class End(NamedTuple):
    """A position that was acknowledged, and the chain checksum there."""

    position: int
    chain: bytes


class EndFile:
    """The file of a journal that is written to; raises JournalError when it cannot be."""

    def __init__(self, directory: Path, server_epoch: int, end: End, *, synced: bool) -> None:
        """Replace the file by one that says `end`; `synced`: it survives the host."""
        self.path = directory / NAME
        self._epoch = server_epoch
        self._offset = 0
        body = _SLOT.pack(_MAGIC, _VERSION, server_epoch, *end)
        content = (body + _CRC.pack(crc32(body))).ljust(SLOT_BYTES, b"\0") * 2
        with failing("written", self.path):
            files.write_whole(self.path, content, synced=synced)
            self._file = open_regular(self.path, os.O_WRONLY)

    def move(self, position: int, chain: bytes) -> None:
        """Say that everything up to a position is in the log; if that fails it is as before."""
        offset = self._offset
        body = _SLOT.pack(_MAGIC, _VERSION, self._epoch, position, chain)
        try:
            os.pwrite(self._file, body + _CRC.pack(crc32(body)), offset)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error
        self._offset = SLOT_BYTES - offset

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            os.close(self._file)
        # Another file may get that number.
        self._file = -1


def read_end(directory: Path, server_epoch: int) -> End | None:
    """What the file says; None when there is none. A server may be writing to it.

    Raises JournalDamaged when it cannot be read, or is of another epoch.
    """
    path = directory / NAME
    for _ in range(_READS):
        try:
            with reading(path):
                data = read_regular(path, 2 * SLOT_BYTES)
        except FileNotFoundError:
            return None
        found = [slot for slot in map(_read, (data[:SLOT_BYTES], data[SLOT_BYTES:])) if slot]
        if found and len(data) > SLOT_BYTES:
            epoch, position, chain = max(found)
            if epoch != server_epoch:
                raise JournalDamaged(f"{path} is of server epoch {epoch}, not {server_epoch}")
            return End(position, chain)
    raise JournalDamaged(f"{path} is damaged: neither of its two slots has a right checksum")


def is_moved(directory: Path) -> bool:
    """Whether there is such a file, and it does not say that nothing was ever acknowledged."""
    path = directory / NAME
    try:
        data = read_regular(path, 2 * SLOT_BYTES)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    slots = [_read(data[:SLOT_BYTES]), _read(data[SLOT_BYTES:])]
    return any(slot is None or slot[1] for slot in slots)


def _read(data: bytes) -> tuple[int, int, bytes] | None:
    """Epoch, position and chain of a sound slot."""
    if len(data) < _SLOT.size + _CRC.size:
        return None
    magic, version, epoch, position, chain = _SLOT.unpack_from(data)
    (checksum,) = _CRC.unpack_from(data, _SLOT.size)
    if (magic, version) != (_MAGIC, _VERSION) or crc32(data[: _SLOT.size]) != checksum:
        return None
    return epoch, position, chain
