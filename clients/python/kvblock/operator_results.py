"""What the calls of operators answer, as plain values.

Rules:
- Those of `kvblock.results`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kvblock.results import Known


class BlockState(Known):
    """Where a block is."""

    UNSPECIFIED = 0
    """A state that this client does not know."""
    FREE = 1
    """Nobody has it, and somebody had it before."""
    HELD = 2
    """In a block table, or acquired."""
    QUARANTINED = 3
    """It was taken from an engine that vanished, and waits before it is free."""
    NEVER_USED = 4
    """Nobody ever had it. It is free."""
    RESERVED = 5
    """It is never issued, and nobody ever had it."""


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """A pool as it was configured or created."""

    pool: str
    total_blocks: int
    """Blocks in it."""
    block_size: int
    """Token slots per block."""
    device_id: int
    """The device whose memory the blocks number."""
    is_default: bool
    """Whether requests that name no pool mean this one."""
    quarantine: float | None = None
    """Seconds that the blocks of a vanished engine wait before they are free; None: as long as the
    TTL of its lease."""
    reserved_blocks: int = 0
    """Blocks 0 to reserved_blocks - 1 are never issued."""
    block_bytes: int = 0
    """Bytes of one block; 0: not told."""
    regions: int = 1
    """Arrays that the pool's memory is divided into; each has an equal part of every block."""
    layout: str = ""
    """How the bytes of a block are arranged, in the words of its engines."""
    memory: str = "none"
    """What its memory is: `none`, `shm` or a URI."""
    memory_uri: str = ""
    """Where that is, as engines get it; empty: nowhere that the server knows of."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine in one pool."""

    pool: str
    engine: str
    epoch: int
    """The epoch of its lease; 0 without one."""
    lease_expires_in: float | None
    """Seconds until its lease runs out unless it is renewed; None without a lease."""
    held_blocks: int
    """Blocks in its tables, and acquired ones."""
    sequences: int
    has_stream: bool
    """Whether a session's stream is open under its lease."""
    since_heartbeat: float | None = None
    """Seconds since the last heartbeat under its lease; None without a lease."""
    acquired_blocks: int = 0
    """Blocks that it holds outside any table; `held_blocks` counts them, too."""
    want_blocks: int = 0
    """Blocks that it lacks: wanted by its hints, refused or waited for, whichever are most."""
    idle_blocks: int = 0
    """Its idle blocks by its last hints, at most those it holds."""
    owed_blocks: int = 0
    """How many of them it owes to other engines."""


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """One block.

    Its engine, `since` and `trace_id` are those of the last grant, also when it is free again.
    """

    block_number: int
    state: BlockState
    """Where it is."""
    engine: str
    """The engine that was granted it last: it has it while the block is held, and has lost it while
    the block is in quarantine; empty when it was never used or is reserved."""
    sequence_id: int | None
    """The sequence whose table it is in; None unless it is held, and for an acquired block."""
    since: float | None
    """When it was granted, in seconds since 1970 by the server's clock; None: never."""
    trace_id: str
    """The trace of the call that was granted it, in hex; empty when it had none."""
    quarantine_ends_in: float | None
    """Seconds until it is free; None unless it is in quarantine."""


@dataclass(frozen=True, slots=True)
class EngineTables:
    """All block tables of one engine in one pool."""

    tables: dict[int, list[int]]
    """Block numbers in table order, by sequence id."""
    revision: int
    """The pool's revision when the last of them was read."""
    at_one_moment: bool
    """Whether the pool did not change while they were read."""


@dataclass(frozen=True, slots=True)
class SequenceInfo:
    """A sequence that has a block table."""

    engine: str
    """The engine that named it."""
    sequence_id: int
    num_blocks: int
    """Blocks in its table."""
    block_numbers: list[int] = field(default_factory=list)
    """The blocks in table order; empty unless they were asked for."""
    first_index: int = 0
    """Blocks that its table has dropped at the head so far."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a recount of one pool found; true in a condition when nothing was wrong."""

    pool: str
    clean: bool
    """Whether nothing was wrong."""
    total_blocks: int
    """Blocks in the pool."""
    free_blocks: int
    """Blocks counted in the free list or never used."""
    held_blocks: int
    """Blocks counted in block tables, and acquired ones."""
    sequences: int
    """Block tables counted."""
    violations: tuple[str, ...]
    """What is wrong, one sentence each; the first 100."""
    quarantined_blocks: int = 0
    """Blocks counted in quarantine."""
    reserved_blocks: int = 0
    """Blocks that are never issued."""
    acquired_blocks: int = 0
    """Acquired blocks counted: blocks that engines hold outside any table."""

    def __bool__(self) -> bool:
        return self.clean
