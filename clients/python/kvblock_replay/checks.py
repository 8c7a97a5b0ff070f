"""Checks of the pools: there and empty before a replay, in order and empty again after it."""

from __future__ import annotations

from collections.abc import Sequence

from kvblock import Client
from kvblock_replay.ledger import ReplayError
from kvblock_replay.modes import Setup


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
    """Check that the server's books of the mode's pools add up. Raises ReplayError."""
    for name in setup.pools:
        for report in client.audit(pool=name):
            if not report.clean:
                raise ReplayError(f"audit of pool {name!r}: {'; '.join(report.violations)}")
