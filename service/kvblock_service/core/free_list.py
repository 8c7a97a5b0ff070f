"""The blocks of a pool that nobody holds, and the order in which they are handed out.

Rules:
- Blocks 0, 1, 2, ... are handed out first; a freed block goes before every never-used one, the
  most recently freed first. A table [0, 1] that is given back comes out as 1, then 0.
- `freed` is a stack of blocks below `fresh`; `fresh` is the lowest block never handed out. So a
  pool of any size starts at once, and costs memory only for the blocks it has used.
- Each free block is in `freed` exactly once, or is at least `fresh`; never both.
"""


class FreeList:
    """A counter of never-used blocks under a stack of freed ones."""

    __slots__ = ("freed", "fresh", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.fresh = 0
        self.freed: list[int] = []

    def __len__(self) -> int:
        """Blocks that can be taken now."""
        return len(self.freed) + self.total - self.fresh

    def take(self, count: int) -> list[int]:
        """The next `count` blocks, in the order in which they are handed out.

        The caller has made sure that as many are free.
        """
        freed = self.freed
        missing = count - len(freed)
        if missing <= 0:
            keep = -missing
            taken = freed[keep:]
            del freed[keep:]
            taken.reverse()
            return taken
        assert missing <= self.total - self.fresh, "took more blocks than are free"
        taken = freed[::-1]
        freed.clear()
        taken.extend(range(self.fresh, self.fresh + missing))
        self.fresh += missing
        return taken
