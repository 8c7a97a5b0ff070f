"""Errors about a whole pool; `errors` has all of them, and how they are declared.

Rules: those of `errors`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kvblock_service.call_error import CallError, Then, aside, shown


@dataclass(eq=False)
class PoolNotFound(CallError):
    """The server hosts no pool of that name; `known` are the names of those it has."""

    reason, code, then, of_state = "POOL_NOT_FOUND", "NOT_FOUND", Then.GIVE_UP, True
    text = "there is no pool {pool!r}; this server's pools: {known}"
    pool: str
    known: Sequence[str] = aside()

    def __post_init__(self) -> None:
        self.known = ", ".join(self.known[:20]) or "none"
        super().__post_init__()


@dataclass(eq=False)
class GeometryMismatch(CallError):
    """A pool is not what an engine was built for; a field that does not differ is None."""

    reason, code, then, of_state = "GEOMETRY_MISMATCH", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = (
        "pool {pool!r} is not what the engine was built for: {problem}; attach to a pool that is,"
        " or make this one anew"
    )
    pool: str
    block_size: int | None = None
    expected_block_size: int | None = None
    block_bytes: int | None = None
    expected_block_bytes: int | None = None
    regions: int | None = None
    expected_regions: int | None = None
    layout: str | None = None
    expected_layout: str | None = None
    problem: str = aside("")

    def __post_init__(self) -> None:
        facts = self.metadata
        self.problem = ", ".join(
            f"{name} is {shown(getattr(self, name))}, expected {shown(getattr(self, expected))}"
            for expected in facts
            if (name := expected.removeprefix("expected_")) != expected
        )
        super().__post_init__()


@dataclass(eq=False)
class PoolExists(CallError):
    """The server hosts a pool of that name."""

    reason, code, then, of_state = "POOL_EXISTS", "ALREADY_EXISTS", Then.GIVE_UP, True
    text = "pool {pool!r} exists already; choose another name, or delete that pool first"
    pool: str


@dataclass(eq=False)
class PoolHeld(CallError):
    """A pool that is in use cannot be deleted."""

    reason, code, then, of_state = "POOL_HELD", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = (
        "pool {pool!r} is in use: {held_blocks} blocks held, {quarantined_blocks} in quarantine,"
        " {leases} engines with a lease, {waiting} waiting calls; detach or reclaim its engines and"
        " wait until the quarantine has ended"
    )
    pool: str
    held_blocks: int
    quarantined_blocks: int
    leases: int
    waiting: int


@dataclass(eq=False)
class MemoryUnusable(CallError):
    """The memory of a new pool cannot be had; `problem` says why, and what to do."""

    reason, code, then, of_state = "MEMORY_UNUSABLE", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = "the memory of pool {pool!r} cannot be had: {problem}"
    pool: str
    problem: str = aside()
