"""Bugs to plant in a real server, which the torture has to find."""

import asyncio

from kvblock_service.committer import Committer
from kvblock_service.core.free_list import FreeList
from kvblock_service.core.pool_data import PoolData
from tests.torture.simulation.plants import admit_anybody, begin_with_all

LATE_WRITE_SECONDS = 0.3


def plant(name: str) -> None:
    """Put a bug into the service of this process."""
    if name == "no-epoch-check":
        PoolData.admit = admit_anybody  # type: ignore[method-assign,assignment]
    elif name == "issued-reserved":
        FreeList.__init__ = begin_with_all  # type: ignore[method-assign,assignment]
    elif name == "early-answer":
        Committer.settled = settled_at_once  # type: ignore[method-assign,assignment]
        Committer.add = add_late  # type: ignore[method-assign,assignment]


async def settled_at_once(_: Committer) -> None:
    """Instead of `Committer.settled`: nobody waits for the journal."""


def add_late(committer: Committer, record: bytes) -> None:
    """Instead of `Committer.add`: the journal is written some time later."""
    committer.added += 1
    committer._pending.append(record)
    if committer._round is None:
        committer._round = []
        asyncio.get_running_loop().call_later(LATE_WRITE_SECONDS, committer._write_round)
