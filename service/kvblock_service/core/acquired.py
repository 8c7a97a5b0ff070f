"""The blocks that engines hold outside any table: which they are, and where each one stands.

Rules:
- `engine.acquired` has the acquired blocks of an engine, each once, in an order that follows from
  the commands alone. `places[block]` is the index of an acquired block in its engine's array; for
  any other block it is some number, and means nothing.
- So a block is acquired by an engine if, and only if, it stands in the engine's array at its place:
  4 bytes a block in the array and 4 in `places`, which covers no more than the blocks that were
  ever handed out.
- Blocks that go leave holes, and the last ones of the array that stay fill these: the holes in the
  order in which they were named, the blocks in the order of the array. What a replay hands out
  depends on that order.
"""

from array import array

from kvblock_service.core.engine import Engine


class Places:
    """Where each acquired block of a pool stands."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places = array("I")

    def add(self, engine: Engine, blocks: list[int], used: int) -> None:
        """Let an engine acquire blocks; `used` is more than the number of any of them."""
        places = self._places
        unknown = used - len(places)
        if unknown > 0:
            places.frombytes(bytes(places.itemsize * unknown))
        first = len(engine.acquired)
        engine.acquired.fromlist(blocks)
        for place, block in enumerate(blocks, first):
            places[block] = place

    def restore(self, engine: Engine, acquired: "array[int]", used: int) -> None:
        """Give an engine the acquired blocks that it had, in their order; raises ValueError."""
        if acquired and max(acquired) >= used:
            raise ValueError(f"block {max(acquired)} is acquired, but was never handed out")
        self.add(engine, acquired.tolist(), used)

    def find(self, engine: Engine | None, blocks: list[int]) -> list[int] | None:
        """Where these blocks stand; None if one of them is not acquired by the engine."""
        if engine is None:
            return None
        acquired = engine.acquired
        try:
            found = list(map(self._places.__getitem__, blocks))
            return found if list(map(acquired.__getitem__, found)) == blocks else None
        except IndexError:
            return None

    def remove(self, engine: Engine, found: list[int]) -> None:
        """Take the blocks of these places from an engine, each place once."""
        acquired, places = engine.acquired, self._places
        left = len(acquired) - len(found)
        holes = [place for place in found if place < left]
        if holes:
            gone = dict.fromkeys(found)
            staying = [acquired[at] for at in range(left, len(acquired)) if at not in gone]
            for hole, block in zip(holes, staying, strict=True):
                acquired[hole] = block
                places[block] = hole
        del acquired[left:]
