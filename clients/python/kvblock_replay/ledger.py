"""The replay's own books: what the server handed out must add up on this side too.

Rules:
  - A granted block belongs to exactly one sequence of one engine until that sequence is freed.
  - An answer that grants too much or too little, hands out a block that is held, gives back another
    number of blocks than were held, or counts other free blocks than these books, is a ReplayError.
    So a server that is wrong, or another client in the replay's pools, is noticed at once and not
    in the sums at the end.
"""

from __future__ import annotations

from kvblock.results import StepResult
from kvblock_replay.modes import Setup
from kvblock_replay.simulation import StepCall


class ReplayError(Exception):
    """The server did what it must not, or what it left behind is not in order."""


class Ledger:
    """Who holds which block, over all pools of a mode."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._held: list[set[int]] = [set() for _ in setup.pools]
        self._tables: list[dict[int, list[int]]] = [{} for _ in setup.layout.pool_of_engine]

    def enter(self, call: StepCall, result: StepResult) -> None:
        """Take down a Step. Raises ReplayError when its answer cannot be."""
        pool = self._setup.layout.pool_of_engine[call.engine]
        held, tables = self._held[pool], self._tables[call.engine]
        returned = [tables.pop(sequence_id) for sequence_id in call.free]
        for table in returned:
            held.difference_update(table)
        self._expect(call, "freed_counts", result.freed_counts, [len(table) for table in returned])
        granted = result.granted
        whole = granted == len(call.allocate)
        self._expect(call, "refused", result.refusal is not None, not whole)
        self._expect(
            call, "number of blocks", len(result.block_numbers), sum(call.num_blocks[:granted])
        )
        before = len(held)
        held.update(result.block_numbers)
        self._expect(call, "number of new blocks", len(held) - before, len(result.block_numbers))
        total = self._setup.layout.pool_blocks[pool]
        self._expect(call, "free_blocks", result.free_blocks, total - len(held))
        start = 0
        for sequence_id, blocks in zip(call.allocate, call.num_blocks[:granted], strict=False):
            table = result.block_numbers[start : start + blocks]
            tables.setdefault(sequence_id, []).extend(table)
            start += blocks

    def _expect(self, call: StepCall, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise ReplayError(
                f"pool {self._setup.pool_of(call.engine)!r}: a step of engine {call.engine} was "
                f"answered with {what} {found}, expected {wanted}: the server is wrong, or another "
                "client uses the pool"
            )
