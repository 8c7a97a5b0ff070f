"""What has to hold of the pools: before a replay, at each of its steps, and after it.

Rules:
  - Before it the pools are there and empty, after it in order and empty again.
  - A granted block belongs to exactly one sequence of one engine until that sequence is freed.
  - An answer that grants too much or too little, hands out a block that is held, gives back another
    number of blocks than were held, or counts other free blocks than follow from the answers before
    it, is a ReplayError. So a server that is wrong, or another client in the replay's pools, is
    noticed at once and not in the sums at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvblock import Client
from kvblock.results import StepResult
from kvblock_replay.modes import Setup
from kvblock_replay.simulation import StepCall


class ReplayError(Exception):
    """The server did what it must not, or what it left behind is not in order."""


class PoolsDifferError(Exception):
    """The server does not host the pools that the replay needs; the text says which.

    `hint` is a command that starts one that does.
    """

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


def check_pools(client: Client, setups: Sequence[Setup]) -> None:
    """Check that the server hosts every pool of these modes, as large as needed and empty.

    Raises PoolsDifferError when a pool is missing or has another size, ReplayError when one is in
    use, KVBlockError when the server cannot be asked.
    """
    hosted = {pool.pool: pool for pool in client.list_pools()}
    problems = []
    for setup in setups:
        for name, blocks in zip(setup.pools, setup.layout.pool_blocks, strict=True):
            pool = hosted.get(name)
            wanted = (blocks, setup.layout.block_size)
            if pool is None:
                problems.append(f"pool {name!r} is missing")
            elif (pool.total_blocks, pool.block_size) != wanted:
                problems.append(
                    f"pool {name!r} has {pool.total_blocks} blocks of {pool.block_size} tokens, "
                    f"not {blocks} of {setup.layout.block_size}"
                )
    if problems:
        pools = " ".join(f"--pool {text}" for setup in setups for text in setup.definitions())
        raise PoolsDifferError("; ".join(problems), f"kvblock serve {pools}")
    for setup in setups:
        check_nothing_held(client, setup)


def check_nothing_held(client: Client, setup: Setup) -> None:
    """Check that nobody holds a block of the mode's pools. Raises ReplayError."""
    for name in setup.pools:
        for pool in client.stats(pool=name).pools:
            if pool.held_blocks or pool.sequences:
                raise ReplayError(
                    f"pool {name!r} is not empty: {pool.sequences} sequences hold "
                    f"{pool.held_blocks} blocks"
                )


def check_audit(client: Client, setup: Setup) -> None:
    """Check that the mode's pools are in order, as the server counts. Raises ReplayError."""
    for name in setup.pools:
        for report in client.audit(pool=name):
            if not report.clean:
                raise ReplayError(f"audit of pool {name!r}: {'; '.join(report.violations)}")


class HeldBlocks:
    """Who holds which block, over all pools of a mode."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._held: list[set[int]] = [set() for _ in setup.pools]
        self._tables: list[dict[int, list[int]]] = [{} for _ in setup.layout.pool_of_engine]

    def apply(self, call: StepCall, result: StepResult) -> None:
        """Follow a Step. Raises ReplayError when its answer cannot be."""
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
