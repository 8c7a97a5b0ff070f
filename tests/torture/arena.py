"""The pool's memory under torture: who wrote each block last, in each of its regions.

Rules:
- A stamp says who wrote it: life, epoch, sequence, and a number that the life never uses again. It
  is in the file that the server makes, which engines and the device map as `kvblock.Arena`.
- In a file beside it there is a counter per life: how many of its writes have landed or were
  dropped. Only the device process changes stamps and counters.
"""

import json
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import kvblock

LIVES_MAX = 16384
REGIONS = 2
_STAMP = struct.Struct("<QQQQ")
_COUNT = struct.Struct("<Q")
BLOCK_BYTES = REGIONS * _STAMP.size


class Stamp(NamedTuple):
    """Who wrote a block last."""

    life: int
    epoch: int
    sequence: int
    number: int


NOBODY = Stamp(0, 0, 0, 0)


class Memory(NamedTuple):
    """What the device is told of the pool's memory, which no attach tells it."""

    memory_uri: str
    total_blocks: int
    reserved_blocks: int
    block_bytes: int
    regions: int

    def as_json(self) -> str:
        """For a command line."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> "Memory":
        """From a command line."""
        return cls(**json.loads(text))


class Stamps:
    """The stamps in a pool's memory."""

    def __init__(self, arena: kvblock.Arena) -> None:
        assert arena.piece_bytes == _STAMP.size
        self._arena = arena

    def close(self) -> None:
        """Let go of the memory."""
        self._arena.close()

    def read(self, block: int) -> Stamp:
        """What is in a block; a number of -1 when its regions differ."""
        found = {
            Stamp(*_STAMP.unpack(self._arena.block(block, region))) for region in range(REGIONS)
        }
        (first, *others) = sorted(found)
        return first._replace(number=-1) if others else first

    def write(self, block: int, stamp: Stamp) -> None:
        """Overwrite a block."""
        for region in range(REGIONS):
            _STAMP.pack_into(self._arena.block(block, region), 0, *stamp)


class Settled:
    """How many writes of each life have landed or were dropped."""

    def __init__(self, path: Path) -> None:
        size = LIVES_MAX * _COUNT.size
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)

    def count(self, life: int) -> int:
        """Those of a life."""
        found: int = _COUNT.unpack_from(self._memory, life * _COUNT.size)[0]
        return found

    def add(self, life: int) -> None:
        """One more."""
        _COUNT.pack_into(self._memory, life * _COUNT.size, self.count(life) + 1)
