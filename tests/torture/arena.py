"""The memory that stands for a device's: one stamp per block, in a file that all processes map.

Rules:
- A stamp says who wrote it: life, epoch, sequence, and a number that the life never uses again.
- Behind the stamps there is a counter per life: how many of its writes have landed or were dropped.
  Only the device process changes stamps and counters.
"""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

LIVES_MAX = 16384
_STAMP = struct.Struct("<QQQQ")
_COUNT = struct.Struct("<Q")


class Stamp(NamedTuple):
    """Who wrote a block last."""

    life: int
    epoch: int
    sequence: int
    number: int


NOBODY = Stamp(0, 0, 0, 0)


class Arena:
    """The mapped file."""

    def __init__(self, path: Path, blocks: int) -> None:
        self._counters = blocks * _STAMP.size
        size = self._counters + LIVES_MAX * _COUNT.size
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)

    def read(self, block: int) -> Stamp:
        """What is in a block."""
        return Stamp(*_STAMP.unpack_from(self._memory, block * _STAMP.size))

    def write(self, block: int, stamp: Stamp) -> None:
        """Overwrite a block."""
        _STAMP.pack_into(self._memory, block * _STAMP.size, *stamp)

    def settled(self, life: int) -> int:
        """How many writes of a life have landed or were dropped."""
        count: int = _COUNT.unpack_from(self._memory, self._counters + life * _COUNT.size)[0]
        return count

    def settle(self, life: int) -> None:
        """One more."""
        at = self._counters + life * _COUNT.size
        _COUNT.pack_into(self._memory, at, _COUNT.unpack_from(self._memory, at)[0] + 1)
