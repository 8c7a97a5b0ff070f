"""The shortest way to say a command of an engine that never attached, and to apply it."""

from kvblock_service.core.commands import (
    Allocate,
    Command,
    Free,
    Outcome,
    Reclaim,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.pool import Pool

STAMP = Stamp(now_ms=0, wall_ms=1_700_000_000_000, trace_id="")


def apply(pool: Pool, command: Command) -> Outcome:
    return pool.apply(command, STAMP)[0]


def allocate(engine: str, sequence_id: int, num_blocks: int) -> Allocate:
    return Allocate(engine, 0, "", sequence_id, num_blocks)


def free(engine: str, sequence_id: int) -> Free:
    return Free(engine, 0, "", sequence_id)


def reclaim(engine: str) -> Reclaim:
    """Take everything from an engine, without a quarantine."""
    return Reclaim(engine, 0, "", 0)


def step(
    engine: str,
    free_ids: list[int],
    allocate_ids: list[int],
    num_blocks: list[int],
    policy: StepPolicy,
) -> Step:
    return Step(engine, 0, "", 0, free_ids, allocate_ids, num_blocks, policy)
