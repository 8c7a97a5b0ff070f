"""Bugs to plant, which the simulation has to find: a check of the check.

Rules:
- A plant changes the program that is simulated, never the oracle.
- Plants are switched on for a block of code, and are gone behind it.
"""

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kvblock_service.core.commands import Stamp
from kvblock_service.core.demand import Demands
from kvblock_service.core.engine import Engine
from kvblock_service.core.free_list import FreeList
from kvblock_service.core.pool_data import PoolData
from tests.torture.setting import RESERVED_BLOCKS

TAKE = FreeList.take


class Plant(NamedTuple):
    """What is wrong with the simulated server.

    `early_answer`: answers go out before their records are in the journal. `no_quarantine`: blocks
    of engines that vanished are free at once. `forgetful_snapshot`: a snapshot keeps no results of
    requests. `no_epoch_check`: calls of any epoch are carried out. `stale_free_list`: blocks come
    back from quarantine behind the back of the free list. `issued_reserved`: the first blocks are
    handed out, reserved or not. `endless_recall`: what an engine lacks counts on when its lease has
    ended.
    """

    early_answer: bool = False
    no_quarantine: bool = False
    forgetful_snapshot: bool = False
    no_epoch_check: bool = False
    stale_free_list: bool = False
    issued_reserved: bool = False
    endless_recall: bool = False


NONE = Plant()
PLANTS = {
    "early-answer": Plant(early_answer=True),
    "no-quarantine": Plant(no_quarantine=True),
    "forgetful-snapshot": Plant(forgetful_snapshot=True),
    "no-epoch-check": Plant(no_epoch_check=True),
    "stale-free-list": Plant(stale_free_list=True),
    "issued-reserved": Plant(issued_reserved=True),
    "endless-recall": Plant(endless_recall=True),
}


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Put into the core for the block what the plant says is wrong with it."""
    admit, give_blocks, end = PoolData.admit, FreeList.give_blocks, Demands.end
    if plant.no_epoch_check:
        PoolData.admit = admit_anybody  # type: ignore[method-assign,assignment]
    if plant.stale_free_list:
        FreeList.give_blocks = give_blocks_behind  # type: ignore[method-assign,assignment]
    if plant.issued_reserved:
        FreeList.take = take_from_block_0  # type: ignore[method-assign,assignment]
    if plant.endless_recall:
        Demands.end = end_nothing  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Demands.end = end  # type: ignore[method-assign]
        PoolData.admit = admit  # type: ignore[method-assign]
        FreeList.give_blocks = give_blocks  # type: ignore[method-assign]
        FreeList.take = TAKE  # type: ignore[method-assign]


def admit_anybody(_: PoolData, engine: Engine | None, __: int, stamp: Stamp) -> None:
    """Instead of `PoolData.admit`: whoever calls is let in."""
    if engine is not None:
        engine.deadline_ms = stamp.now_ms + engine.ttl_ms


def end_nothing(_: Demands, __: str) -> None:
    """Instead of `Demands.end`: an engine that is gone is not forgotten."""


def give_blocks_behind(free_list: FreeList, blocks: "array[int]") -> None:
    """Instead of `FreeList.give_blocks`: it does not learn that other blocks are the newest."""
    free_list.freed.extend(blocks)


def take_from_block_0(free_list: FreeList, count: int) -> list[int]:
    """Instead of `FreeList.take`: the reserved blocks are the first ones to be handed out."""
    if free_list.fresh == RESERVED_BLOCKS:
        free_list.fresh = 0
    return TAKE(free_list, count)
