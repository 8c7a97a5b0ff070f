"""The blocks of a pool that nobody holds, and the order in which they are handed out.

Rules:
- Blocks below `reserved` are never handed out and never free. The others are handed out in the
  order of their numbers first; a freed block goes before every never-used one, the
  most recently freed first. A table [0, 1] that is given back comes out as 1, then 0.
- `freed` is a stack of blocks below `fresh`; `fresh` is the lowest block never handed out that is
  not reserved. So a pool of any size starts at once, and costs memory only for the blocks it has
  used.
- Each free block is in `freed` exactly once, or is at least `fresh`; never both.
- `_newest` is empty, or holds the very numbers on top of `freed`: a step mostly takes what it has
  just given back, and then needs no new objects for them. So nobody else changes `freed`.
"""

from array import array


class FreeList:
    """A counter of never-used blocks under a stack of freed ones."""

    __slots__ = ("_newest", "freed", "fresh", "total")

    def __init__(self, total: int, reserved: int = 0) -> None:
        assert 0 <= reserved < total, "a pool has a block that is not reserved"
        self.total = total
        self.fresh = reserved
        self.freed = array("I")
        self._newest: list[int] = []

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
        newest, self._newest = self._newest, []
        assert not newest or newest[-1] == freed[-1], "the newest blocks are not on top"
        taken = newest[-reused:] if 0 < reused <= len(newest) else freed[first:].tolist()
        del freed[first:]
        taken.reverse()
        if reused < count:
            end = self.fresh + count - reused
            assert end <= self.total, "took more blocks than are free"
            taken.extend(range(self.fresh, end))
            self.fresh = end
        return taken

    def give(self, tables: "list[int | array[int] | None]") -> list[int]:
        """Take tables back, in order, and answer how many blocks each one had.

        A table is an array of blocks, or the number of its only block; None is none at all. The
        caller leaves the list as it is from here on.
        """
        freed = self.freed
        try:
            # Most tables of a step have one block; anything else leaves the stack unchanged.
            freed.fromlist(tables)  # type: ignore[arg-type]
        except TypeError:
            self._newest = []
            return [self._give_one(table) for table in tables]
        self._newest = tables  # type: ignore[assignment]
        return [1] * len(tables)

    def give_blocks(self, blocks: "array[int]") -> None:
        """Take blocks back, in order."""
        self.freed.extend(blocks)
        self._newest = []

    def _give_one(self, table: "int | array[int] | None") -> int:
        if table is None:
            return 0
        if isinstance(table, int):
            self.freed.append(table)
            return 1
        self.freed.extend(table)
        return len(table)
