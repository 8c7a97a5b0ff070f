"""Bugs to plant, which the simulation has to find: a check of the check.

Rules:
- A plant changes the program that is simulated, never the oracle.
- Plants are switched on for a block of code, and are gone behind it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kvblock_service.core.commands import Stamp
from kvblock_service.core.engine import Engine
from kvblock_service.core.pool import Pool


class Plant(NamedTuple):
    """What is wrong with the simulated server.

    `early_answer`: answers go out before their records are in the journal. `no_quarantine`: blocks
    of engines that vanished are free at once. `forgetful_snapshot`: a snapshot keeps no results of
    requests. `no_epoch_check`: calls of any epoch are carried out.
    """

    early_answer: bool = False
    no_quarantine: bool = False
    forgetful_snapshot: bool = False
    no_epoch_check: bool = False


NONE = Plant()
PLANTS = {
    "early-answer": Plant(early_answer=True),
    "no-quarantine": Plant(no_quarantine=True),
    "forgetful-snapshot": Plant(forgetful_snapshot=True),
    "no-epoch-check": Plant(no_epoch_check=True),
}


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Take the epoch check out of the core for the block, if the plant says so."""
    if not plant.no_epoch_check:
        yield
        return
    original = Pool._admit
    Pool._admit = admit_anybody  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Pool._admit = original  # type: ignore[method-assign]


def admit_anybody(_: Pool, engine: Engine | None, __: int, stamp: Stamp) -> None:
    """Instead of `Pool._admit`: whoever calls is let in."""
    if engine is not None:
        engine.deadline_ms = stamp.now_ms + engine.ttl_ms
