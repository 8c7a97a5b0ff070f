"""Bugs to plant in a real server, or in an engine, which the torture has to find."""

import asyncio
from array import array
from typing import Any

from kvblock.stash import Exchange, Stash
from kvblock_service.committer import Committer
from kvblock_service.core.free_list import FreeList
from kvblock_service.core.pool_data import PoolData
from tests.torture.simulation.plants import admit_anybody, take_from_block_0

LATE_WRITE_SECONDS = 0.3


def plant(name: str) -> None:
    """Put a bug into the service of this process."""
    if name == "no-epoch-check":
        PoolData.admit = admit_anybody  # type: ignore[method-assign,assignment]
    elif name == "issued-reserved":
        FreeList.take = take_from_block_0  # type: ignore[method-assign,assignment]
    elif name == "freed-twice":
        FreeList.give = give_some_twice  # type: ignore[method-assign,assignment]
    elif name == "released-twice":
        FreeList.give_numbers = give_some_numbers_twice  # type: ignore[method-assign,assignment]
    elif name == "early-answer":
        Committer.settled = settled_at_once  # type: ignore[method-assign,assignment]
        Committer.add = add_late  # type: ignore[method-assign,assignment]


def plant_in_client(name: str) -> None:
    """Put a bug into the client of this process."""
    if name == "stash-forgotten":
        Stash.empty = forget_the_stash  # type: ignore[method-assign,assignment]


def give_some_twice(
    free_list: FreeList, tables: "list[int | array[int] | None]", give: Any = FreeList.give
) -> list[int]:
    """Instead of `FreeList.give`: one of every 16 blocks comes back twice."""
    counts: list[int] = give(free_list, tables)
    if sum(counts) and free_list.freed[-1] % 16 == 0:
        free_list.freed.append(free_list.freed[-1])
        free_list._newest = []
    return counts


def give_some_numbers_twice(
    free_list: FreeList, blocks: list[int], give: Any = FreeList.give_numbers
) -> None:
    """Instead of `FreeList.give_numbers`: one of every 4 released blocks comes back twice."""
    give(free_list, blocks)
    if blocks[-1] % 4 == 0:
        free_list.freed.append(blocks[-1])
        free_list._newest = []


def forget_the_stash(stash: Stash) -> Exchange:
    """Instead of `Stash.empty`: what is ready is given back by nobody."""
    stash._open = Exchange(0, [])
    return stash._open


async def settled_at_once(_: Committer) -> None:
    """Instead of `Committer.settled`: nobody waits for the journal."""


def add_late(committer: Committer, record: bytes) -> None:
    """Instead of `Committer.add`: the journal is written some time later."""
    committer.added += 1
    committer._pending.append(record)
    if committer._round is None:
        committer._round = []
        asyncio.get_running_loop().call_later(LATE_WRITE_SECONDS, committer._write_round)
