"""The blocks of a pool that nobody holds, and the order in which they are handed out.

Rules:
- Blocks 0, 1, 2, ... are handed out first; a freed block goes before every never-used one, the
  most recently freed first. A table [0, 1] that is given back comes out as 1, then 0.
- `freed` is a stack of blocks below `fresh`; `fresh` is the lowest block never handed out. So a
  pool of any size starts at once, and costs memory only for the blocks it has used.
- Each free block is in `freed` exactly once, or is at least `fresh`; never both.
"""

from array import array
from collections.abc import Iterable, Sequence


class FreeList:
    """A counter of never-used blocks under a stack of freed ones."""

    __slots__ = ("freed", "fresh", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.fresh = 0
        self.freed = array("I")

    def __len__(self) -> int:
        """Blocks that can be taken now."""
        return len(self.freed) + self.total - self.fresh

    def take(self, count: int) -> list[int]:
        """The next `count` blocks, in the order in which they are handed out.

        The caller has made sure that as many are free.
        """
        freed = self.freed
        reused = min(count, len(freed))
        first = len(freed) - reused
        taken = freed[first:].tolist()
        del freed[first:]
        taken.reverse()
        if reused < count:
            end = self.fresh + count - reused
            assert end <= self.total, "took more blocks than are free"
            taken.extend(range(self.fresh, end))
            self.fresh = end
        return taken

    def give(self, tables: Iterable[Sequence[int]]) -> int:
        """Take tables back, in order; answer how many blocks they had."""
        blocks: list[int] = []
        for table in tables:
            blocks.extend(table)
        self.freed.fromlist(blocks)
        return len(blocks)
