"""What the calls of engines answer, as plain values.

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


class Known(Enum):
    """What this client knows of an enum that may grow; 0 is UNSPECIFIED."""

    @classmethod
    def _missing_(cls, value: object) -> Known:
        return cls(0)


class RefusalReason(Known):
    """Why an allocation was refused."""

    UNSPECIFIED = 0
    """A reason that this client does not know."""
    POOL_EXHAUSTED = 1
    """Fewer blocks are free than needed. Freed blocks will help: try again later."""
    EXCEEDS_POOL = 2
    """More blocks are needed than the pool can ever issue. Trying again cannot help."""


class StepPolicy(Enum):
    """What a step does when the pool cannot serve all of its allocations."""

    ALL_OR_NOTHING = 1
    """No allocation of the step is granted, and nothing acquired. What it gave back stays free."""
    IN_ORDER_UNTIL_REFUSED = 2
    """Allocations are granted in order up to the first that does not fit; the rest wait. When all
    fit, as many blocks are acquired as are left."""


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
    first_index: int = 0
    """Blocks that the table has dropped at its head so far."""


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
    """Why the next one was not served, or not as many blocks acquired as were asked for (all or
    nothing: why nothing was granted); None when everything was."""
    freed_counts: list[int]
    """Blocks that each freed sequence gave back."""
    free_blocks: int
    """Free blocks of the pool after the step."""
    acquired_block_numbers: list[int] = field(default_factory=list)
    """The blocks that were acquired, in the order in which the pool handed them out."""
    trimmed_counts: list[int] = field(default_factory=list)
    """Blocks that each trimmed sequence gave back."""
    owed_blocks: int = 0
    """How many of the engine's idle blocks others lack now."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One engine in one pool."""

    engine: str
    held_blocks: int
    """Blocks in its tables, and acquired ones."""
    sequences: int
    attached: bool
    """Whether it has a lease."""
    epoch: int = 0
    """The epoch of its lease; 0 without one."""
    lease_expires_in: float | None = None
    """Seconds until its lease runs out unless it is renewed; None without a lease."""
    acquired_blocks: int = 0
    """Blocks that it holds outside any table; `held_blocks` counts them, too."""
    want_blocks: int = 0
    """Blocks that it lacks: wanted by its hints, refused or waited for, whichever are most."""
    idle_blocks: int = 0
    """Its idle blocks by its last hints, at most those it holds."""
    owed_blocks: int = 0
    """How many of them it owes to other engines."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One pool at one moment.

    free_blocks + held_blocks + quarantined_blocks + reserved_blocks = total_blocks.
    """

    pool: str
    total_blocks: int
    """Blocks in it."""
    free_blocks: int
    """Blocks that nobody holds."""
    held_blocks: int
    """Blocks that are in a block table, and acquired ones."""
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
    reserved_blocks: int = 0
    """Blocks 0 to reserved_blocks - 1 are never issued."""
    acquired_blocks: int = 0
    """Blocks that engines hold outside any table; `held_blocks` counts them, too."""
    want_blocks: int = 0
    """Blocks that engines lack."""
    idle_blocks: int = 0
    """Idle blocks of engines."""
    owed_blocks: int = 0
    """Idle blocks that engines owe."""

    @property
    def issuable_blocks(self) -> int:
        """Blocks that engines can have in all: those that are not reserved."""
        return self.total_blocks - self.reserved_blocks


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
    reserved_blocks: int = 0
    """Blocks 0 to reserved_blocks - 1 are never issued."""
    block_bytes: int = 0
    """Bytes of one block; 0: not told."""
    regions: int = 1
    """Arrays that the pool's memory is divided into; each has an equal part of every block."""
    layout: str = ""
    """How the bytes of a block are arranged, in the words of the engines."""
    acquired_blocks: int = 0
    """Acquired blocks among those that the engine held already."""
    memory_uri: str = ""
    """Where the pool's memory is; empty: nowhere that the server knows of."""
