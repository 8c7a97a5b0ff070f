"""What clients saw of blocks, and whether two of them ever held the same one.

A block is a client's from the moment it reads the answer that granted the block to the moment
before it sends the free. The server can only grant it to another in between if it is wrong: the
block it takes back is one whose free was sent. So these spans never overlap, whatever the order in
which messages travel.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import count, pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """One client's hold of a block, from event number `begin` to event number `end`."""

    begin: int
    end: float
    client: str


class History:
    """Numbers the events of all clients of one process in the order in which they happen."""

    def __init__(self) -> None:
        self._clock = count()
        self._open: dict[tuple[str, int], int] = {}
        self._spans: dict[int, list[Span]] = defaultdict(list)

    def granted(self, client: str, blocks: Iterable[int]) -> None:
        """The client has read that these blocks are its own."""
        now = next(self._clock)
        for block in blocks:
            begun = self._open.setdefault((client, block), now)
            assert begun == now, f"{client} was given block {block}, which it holds already"

    def giving_back(self, client: str, blocks: Iterable[int]) -> None:
        """The client is about to free these blocks."""
        now = next(self._clock)
        for block in blocks:
            self._spans[block].append(Span(self._open.pop((client, block)), now, client))

    def held(self) -> set[int]:
        """The blocks that somebody holds now."""
        return {block for _, block in self._open}

    @property
    def grants(self) -> int:
        """How many times a block was granted."""
        return len(self._open) + sum(map(len, self._spans.values()))

    def overlaps(self) -> list[str]:
        """Each pair of spans of one block that overlap, in words."""
        spans = {block: list(found) for block, found in self._spans.items()}
        for (client, block), begin in self._open.items():
            spans.setdefault(block, []).append(Span(begin, float("inf"), client))
        return [
            f"block {block} was held by {one.client} in {one[:2]} and by {two.client} in {two[:2]}"
            for block, found in sorted(spans.items())
            for one, two in pairwise(sorted(found))
            if two.begin <= one.end
        ]
