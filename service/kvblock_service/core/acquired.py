"""The blocks that engines hold outside any table: which they are, and in which order.

Rules:
- What one command has acquired is an Acquisition. `grants[block]` is the block's Acquisition while
  it is acquired, and tells which blocks of the array still are; any other block is granted to a
  plain Grant. So to find, to acquire and to release a block touch nothing else that there is one of
  for each block.
- An engine's acquired blocks are in the order in which they were acquired: what a replay hands out
  depends on it.
- At most half of an Acquisition's array are blocks that are no longer its own: at most 8 bytes a
  block that is.
"""

from array import array
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple, TypeAlias, final


class Grant(NamedTuple):
    """Who was granted a block, when (milliseconds since 1970), and under which trace."""

    engine: str
    since_ms: int
    trace_id: str


@final
class Acquisition:
    """The blocks that one command has acquired, and how many of them are `left`."""

    __slots__ = ("blocks", "grant", "left")

    def __init__(self, blocks: Sequence[int], grant: Grant) -> None:
        self.blocks = blocks
        self.grant = grant
        self.left = len(blocks)


Grants: TypeAlias = "list[Grant | Acquisition]"
Found: TypeAlias = dict[Acquisition, None]
"""Acquisitions, each once."""


def grant_of(granted: Grant | Acquisition) -> Grant:
    """The grant of a block, acquired or not."""
    return granted.grant if isinstance(granted, Acquisition) else granted


class AcquiredBlocks:
    """One engine's acquired blocks. `grants` are its pool's, for each method."""

    __slots__ = ("_acquisitions", "_count")

    def __init__(self) -> None:
        self._acquisitions: dict[Acquisition, None] = {}
        self._count = 0

    def __len__(self) -> int:
        """How many blocks they are."""
        return self._count

    def add(self, blocks: list[int], grant: Grant, grants: Grants) -> None:
        """Acquire blocks, one at least."""
        packed = tuple(blocks) if len(blocks) == 1 else array("I", blocks)
        self._put(Acquisition(packed, grant), grants)

    def restore(self, blocks: "array[int]", grants: Grants) -> None:
        """Acquire blocks that have their grants, in order; raises ValueError."""
        if blocks and max(blocks) >= len(grants):
            raise ValueError(f"block {max(blocks)} is acquired, but was never handed out")
        for granted, run in groupby(blocks, grants.__getitem__):
            self._put(Acquisition(array("I", run), grant_of(granted)), grants)

    def find(self, blocks: list[int], grants: Grants) -> Found | None:
        """The acquisitions of these blocks; None if one of them is not acquired by the engine."""
        try:
            if len(blocks) == 1:
                only = grants[blocks[0]]
                return {only: None} if only in self._acquisitions else None
            # All are looked up in one call: a step waits for it.
            found = dict.fromkeys(itemgetter(*blocks)(grants))
        except IndexError:
            return None
        return found if self._acquisitions.keys() >= found.keys() else None

    def remove(self, blocks: list[int], found: Found, grants: Grants) -> None:
        """Release blocks, each of them once, that `find` has found."""
        if len(found) == 1:
            for one in found:
                one.left -= len(blocks)
                grant = one.grant
            for block in blocks:
                grants[block] = grant
        else:
            for block in blocks:
                one = grants[block]  # type: ignore[assignment]
                one.left -= 1
                grants[block] = one.grant
        for one in found:
            if not one.left:
                del self._acquisitions[one]
            elif 2 * one.left < len(one.blocks):
                one.blocks = _left(one, grants)
        self._count -= len(blocks)

    def blocks(self, grants: Grants) -> "array[int]":
        """All of them, in order."""
        blocks = array("I")
        for one in self._acquisitions:
            blocks.extend(_left(one, grants))
        return blocks

    def clear(self, grants: Grants) -> "array[int]":
        """Let the engine have none any more; answers which they were, in order."""
        blocks = self.blocks(grants)
        for block in blocks:
            grants[block] = grant_of(grants[block])
        self._acquisitions.clear()
        self._count = 0
        return blocks

    def _put(self, acquisition: Acquisition, grants: Grants) -> None:
        for block in acquisition.blocks:
            grants[block] = acquisition
        self._acquisitions[acquisition] = None
        self._count += acquisition.left


def _left(one: Acquisition, grants: Grants) -> "array[int]":
    """The blocks of an acquisition that it still has."""
    return array("I", [block for block in one.blocks if grants[block] is one])
