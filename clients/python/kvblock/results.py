"""What calls answer, as plain values.

Rules:
- A value is frozen and does not depend on the connection it came from; names and units are those of
  the proto.
- A refusal is a value like any other, never an exception.
- Lists of numbers are plain lists, in the order of the contract.
- An enum value that this client does not know reads as UNSPECIFIED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class _Known(Enum):
    """What this client knows of an enum that may grow; 0 is UNSPECIFIED."""

    @classmethod
    def _missing_(cls, value: object) -> _Known:
        return cls(0)


class RefusalReason(_Known):
    """Why an allocation was refused."""

    UNSPECIFIED = 0
    """A reason that this client does not know."""
    POOL_EXHAUSTED = 1
    """Fewer blocks are free than needed. Freed blocks will help: try again later."""
    EXCEEDS_POOL = 2
    """More blocks are needed than the pool has in total. Trying again cannot help."""


class BlockState(_Known):
    """Where a block is."""

    UNSPECIFIED = 0
    """A state that this client does not know."""
    FREE = 1
    """Nobody has it, and somebody had it before."""
    HELD = 2
    """In a block table."""
    QUARANTINED = 3
    """It was taken from an engine that vanished, and waits before it is free."""
    NEVER_USED = 4
    """Nobody ever had it. It is free."""


class StepPolicy(Enum):
    """What a step does when the pool cannot serve all of its allocations."""

    ALL_OR_NOTHING = 1
    """No allocation of the step is granted. Its frees stay done."""
    IN_ORDER_UNTIL_REFUSED = 2
    """Allocations are granted in order up to the first that does not fit; the rest wait."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The blocks that an allocation took."""

    block_numbers: list[int]
    """The appended blocks, in table order."""
    block_size: int
    """Token slots per block."""
    device_id: int
    """The device whose memory the blocks number."""
    table_length: int
    """Blocks in the sequence's table, these included."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An allocation that the pool's state does not permit now. Nothing was taken."""

    reason: RefusalReason
    free_blocks: int
    """Blocks free at the moment of the refusal."""
    needed: int
    """Blocks that the refused allocation needed."""
    retry_after: float | None
    """Seconds until a new try makes sense; None when trying again cannot help."""


@dataclass(frozen=True, slots=True)
class BlockTable:
    """The blocks of a sequence."""

    block_numbers: list[int]
    """In table order."""
    block_size: int
    """Token slots per block."""
    device_id: int
    """The device whose memory the blocks number."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Whether an allocation would be granted at this moment; true in a condition when it would."""

    can_allocate: bool
    """Whether at least as many blocks are free as were asked for."""
    free_blocks: int
    """Blocks free for this engine."""

    def __bool__(self) -> bool:
        return self.can_allocate


@dataclass(frozen=True, slots=True)
class StepResult:
    """What came of a step."""

    block_numbers: list[int]
    """The granted blocks, flat, in request order."""
    granted: int
    """How many of the allocating sequences were served; they are the first ones."""
    refusal: Refused | None
    """Why the next one was not served (all or nothing: why none was); None when all were."""
    freed_counts: list[int]
    """Blocks that each freed sequence gave back."""
    free_blocks: int
    """Free blocks of the pool after the step."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine in one pool."""

    engine: str
    held_blocks: int
    """Blocks in its tables."""
    sequences: int
    attached: bool
    """Whether it has a lease."""
    epoch: int = 0
    """The epoch of its lease; 0 without one."""
    lease_expires_in: float | None = None
    """Seconds until its lease runs out unless it is renewed; None without a lease."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One pool at one moment: free_blocks + held_blocks + quarantined_blocks = total_blocks."""

    pool: str
    total_blocks: int
    """Blocks in it."""
    free_blocks: int
    """Blocks that nobody holds."""
    held_blocks: int
    """Blocks that are in a block table."""
    block_size: int
    """Token slots per block."""
    device_id: int
    """The device whose memory the blocks number."""
    sequences: int
    """Sequences that have a block table, over all engines."""
    allocated_blocks_total: int
    """Blocks granted since the server epoch began."""
    freed_blocks_total: int
    """Blocks returned since the server epoch began."""
    refusals: Mapping[RefusalReason, int]
    """Refusals since the server epoch began, by reason; those that never occurred are left out."""
    revision: int
    """Grows by one with every command that changed the pool."""
    waiting: int
    """Allocations that are waiting for blocks now."""
    engines: tuple[EngineStats, ...]
    """The engines that were asked for, in order of their names."""
    quarantined_blocks: int = 0
    """Blocks of vanished engines that wait before they are free."""
    reclaimed_blocks_total: int = 0
    """Blocks that were taken from engines that vanished, since the server epoch began."""
    expired_leases_total: int = 0
    """Leases that ran out, since the server epoch began."""


@dataclass(frozen=True, slots=True)
class ServerStats:
    """The state and the counters of the pools that were asked for."""

    pools: tuple[PoolStats, ...]
    """In order of their names."""
    server_epoch: int
    """Grows with every start of the server that begins with empty pools."""
    server_version: str = ""
    """The version of the server's package; empty: it does not say."""


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
    """Blocks in its tables."""
    sequences: int
    has_stream: bool
    """Whether a session's stream is open under its lease."""
    since_heartbeat: float | None = None
    """Seconds since the last heartbeat under its lease; None without a lease."""


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
    the block is in quarantine; empty when it was never used."""
    sequence_id: int | None
    """The sequence whose table it is in; None unless it is held."""
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
    """Blocks counted in block tables."""
    sequences: int
    """Block tables counted."""
    violations: tuple[str, ...]
    """What is wrong, one sentence each; the first 100."""
    quarantined_blocks: int = 0
    """Blocks counted in quarantine."""

    def __bool__(self) -> bool:
        return self.clean


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """An engine's lease as the server gave it."""

    epoch: int
    """Fences every later call."""
    ttl: float
    """Seconds that the lease lasts without renewal."""
    renew_after: float
    """Seconds after the last renewal at which to renew it at the latest."""
    resumed: bool
    """Whether the lease had begun before this attach."""
    expires_in: float
    """Seconds that it still lasted without another renewal when this was answered."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What an attach answered."""

    pool: str
    """The pool's name; of a unary attach as the request had it, empty: the default pool."""
    engine: str
    total_blocks: int
    """Blocks in the pool."""
    block_size: int
    """Token slots per block."""
    device_id: int
    """The device whose memory the blocks number."""
    held_blocks: int
    """Blocks that the engine held already, from before this attach."""
    sequences: int
    """Sequences that the engine had already."""
    server_epoch: int
    """When it differs from the last attach's, earlier blocks are gone."""
    lease: LeaseGranted
    last_step_id: int
    """The last step of a session that was carried out under its epoch; 0: none."""
