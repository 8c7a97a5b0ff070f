"""Bugs to plant in a real server, which the torture has to find."""

import asyncio

from tests.torture.simulation.plants import admit_anybody

from kvblock_service.committer import Committer
from kvblock_service.core.pool import Pool

LATE_WRITE_SECONDS = 0.3


def plant(name: str) -> None:
    """Put a bug into the service of this process."""
    if name == "no-epoch-check":
        Pool._admit = admit_anybody  # type: ignore[method-assign,assignment]
    elif name == "early-answer":
        Committer.settled = settled_at_once  # type: ignore[method-assign,assignment]
        Committer._begin_round = begin_late  # type: ignore[method-assign,assignment]


async def settled_at_once(_: Committer) -> None:
    """Instead of `Committer.settled`: nobody waits for the journal."""


def begin_late(committer: Committer) -> None:
    """Instead of `Committer._begin_round`: the journal is written some time later."""
    loop = asyncio.get_running_loop()
    committer._round = []
    loop.call_later(LATE_WRITE_SECONDS, committer._write_round)
