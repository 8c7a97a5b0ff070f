"""How many of its idle blocks each engine owes to those that lack blocks.

Rules:
- A level, not an order: it follows from what engines lack and could give back at this moment.
- Nothing depends on it: it decides no outcome of a command, and no record has it.
- What is owed in all is at most what is lacked beyond the supply, and at most what the engines with
  idle blocks can spare. An engine owes no more than its idle blocks, those it holds and those it
  does not need itself, and nothing for its own demand.
- The idlest pay first: they owe what they have above a common level, at which as many blocks come
  together as are lacked. An engine that pays changes nothing for the others: the level stays.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Hints(NamedTuple):
    """What an engine says of itself, in blocks.

    `want_blocks`: how many it lacks. `idle_blocks`: how many it holds and could give back without
    preempting a sequence or computing anything again.
    """

    want_blocks: int
    idle_blocks: int


class EngineLevel(NamedTuple):
    """What one engine lacks, could give back and holds, in blocks."""

    name: str
    demand: int
    idle: int
    held: int


def owed(engines: Iterable[EngineLevel], supply: int) -> dict[str, int]:
    """What each engine owes by its name; those that owe nothing are left out.

    `supply`: blocks that are free, or will be so soon without anybody's doing.
    """
    rows = list(engines)
    demand = sum(row.demand for row in rows)
    unmet = demand - supply
    if unmet <= 0:
        return {}
    donors: list[tuple[str, int, int]] = []
    for row in sorted(rows):
        spare = min(row.idle, row.held) - row.demand
        others = unmet - row.demand
        if spare > 0 and others > 0:
            donors.append((row.name, spare, others))
    level, kept = _level(donors, unmet)
    found: dict[str, int] = {}
    for name, spare, others in donors:
        blocks = min(spare - level, others)
        if kept and 0 < blocks == spare - level:
            # Together they would give more than is lacked: some keep one block more.
            kept -= 1
            blocks -= 1
        if blocks > 0:
            found[name] = blocks
    return found


def _level(donors: list[tuple[str, int, int]], unmet: int) -> tuple[int, int]:
    """The highest level above which at least `unmet` blocks are, and how many more than that."""
    low, high = 0, max((spare for _, spare, _ in donors), default=0)
    above = _above(donors, 0)
    if above <= unmet:
        return 0, 0
    while high - low > 1:
        middle = (low + high) // 2
        found = _above(donors, middle)
        if found >= unmet:
            low, above = middle, found
        else:
            high = middle
    return low, above - unmet


def _above(donors: list[tuple[str, int, int]], level: int) -> int:
    return sum(min(spare - level, others) for _, spare, others in donors if spare > level)
