"""What can be asked of a pool and of the registry of pools, and what they answer.

Rules:
- A command is a value that was checked before it came here: ids are unsigned 64-bit integers,
  counts are at least 1, no id is a duplicate in its column of a step, columns are lists.
- Time is a value too: a Stamp comes with each command of a pool.
- A refusal, a crossed limit and a stale epoch are outcomes, never exceptions; all of them leave the
  tables as they were. The outcomes in REJECTIONS have changed nothing at all.
- Lists in a command or an outcome belong to its receiver's reading only: nobody changes them.
"""

from enum import Enum
from typing import NamedTuple, TypeAlias

NO_MEMORY, SHM = "none", "shm"
"""What `memory` of a pool is, unless it is a URI: nothing that the server knows of, or a file that
it makes."""
_EMPTY: list[int] = []


class Geometry(NamedTuple):
    """What a pool is: `total_blocks` blocks of `block_size` token slots on device `device_id`.

    Blocks 0 to `reserved_blocks` - 1 are never issued, and at least one block is not reserved.
    `block_bytes` is the memory of one block, 0 when it is not told; it is divided evenly among
    `regions` arrays. `layout` is what its engines call the arrangement of the bytes.
    `memory` says where they are: NO_MEMORY, SHM or a URI, which nothing here reads.
    """

    name: str
    total_blocks: int
    block_size: int
    device_id: int
    reserved_blocks: int = 0
    block_bytes: int = 0
    regions: int = 1
    layout: str = ""
    memory: str = NO_MEMORY

    @property
    def memory_bytes(self) -> int:
        """Bytes of all blocks together; 0 when `block_bytes` is not told."""
        return self.total_blocks * self.block_bytes

    @property
    def issuable_blocks(self) -> int:
        """How many blocks engines can have in all: those that are not reserved."""
        return self.total_blocks - self.reserved_blocks


class Stamp(NamedTuple):
    """When a command was given, and in whose name.

    `now_ms` is the host's monotonic clock and decides about leases; `wall_ms` (since 1970) and
    `trace_id` (hex, empty when there is none) are stored for whoever asks who holds a block.
    """

    now_ms: int
    wall_ms: int
    trace_id: str


class StepPolicy(Enum):
    """What a step does when the pool cannot serve all of its allocations."""

    ALL_OR_NOTHING = 1
    IN_ORDER_UNTIL_REFUSED = 2


class RefusalReason(Enum):
    """Why an allocation was refused; the values are those of the wire."""

    POOL_EXHAUSTED = 1
    EXCEEDS_POOL = 2


class Allocate(NamedTuple):
    """Append `num_blocks` blocks to a sequence's table, all or none."""

    engine: str
    epoch: int
    request_id: str
    sequence_id: int
    num_blocks: int


class Free(NamedTuple):
    """Return all blocks of a sequence; an unknown sequence has none."""

    engine: str
    epoch: int
    request_id: str
    sequence_id: int


class Step(NamedTuple):
    """One engine iteration: frees, releases, trims, allocations in order, and an acquire.

    `num_blocks` runs parallel to `allocate_ids`; empty means one block each. `trim_heads` and
    `trim_tails` run parallel to `trim_ids`; empty means none each. `release` are acquired blocks of
    the engine. `step_id` is 0 outside a session; in one it is 1 for the first step of an epoch,
    then grows by one.
    """

    engine: str
    epoch: int
    request_id: str
    step_id: int
    free_ids: list[int]
    allocate_ids: list[int]
    num_blocks: list[int]
    policy: StepPolicy
    release: list[int] = _EMPTY
    acquire: int = 0
    trim_ids: list[int] = _EMPTY
    trim_heads: list[int] = _EMPTY
    trim_tails: list[int] = _EMPTY


class Attach(NamedTuple):
    """Begin a lease of `ttl_ms`, or go on with the one whose epoch is named.

    A `ttl_ms` of 0 leaves the lease the TTL that it has, and begins none.
    `takeover` ends a lease of the same name that another client has; its blocks wait for
    `quarantine_ms` then.
    """

    engine: str
    epoch: int
    request_id: str
    takeover: bool
    ttl_ms: int
    quarantine_ms: int


class Renew(NamedTuple):
    """Let a lease last for a full TTL from now."""

    engine: str
    epoch: int

    @property
    def request_id(self) -> str:
        """None: a second one does what the first one did."""
        return ""


class Detach(NamedTuple):
    """End a lease in order: all blocks of the engine are free at once."""

    engine: str
    epoch: int
    request_id: str


class Expire(NamedTuple):
    """End a lease that was not renewed: its blocks go into quarantine for `quarantine_ms`."""

    engine: str
    epoch: int
    quarantine_ms: int
    request_id: str = ""


class Reclaim(NamedTuple):
    """Take an engine's blocks into quarantine, attached or not, and end its lease.

    An `epoch` other than 0 has to be the engine's.
    """

    engine: str
    epoch: int
    request_id: str
    quarantine_ms: int


class EndQuarantine(NamedTuple):
    """Put the blocks of one quarantine batch back on the free list."""

    batch: int
    engine: str = ""
    epoch: int = 0
    request_id: str = ""


class CreatePool(NamedTuple):
    """Make a pool, empty, whose epochs are greater than `epoch_floor`.

    `configured`: it is in the configuration of the server, not made at run time. `quarantine_ms` is
    how long the blocks of a vanished engine wait in a pool that was made at run time; None: for its
    TTL.
    """

    geometry: Geometry
    epoch_floor: int
    configured: bool
    quarantine_ms: int | None = None
    request_id: str = ""


class DeletePool(NamedTuple):
    """Delete a pool with all that is in it; who asks has looked whether somebody uses it."""

    pool: str
    request_id: str = ""


class Granted(NamedTuple):
    """Blocks appended to a table, in table order, and the table's length afterwards."""

    blocks: list[int]
    table_length: int


class Refused(NamedTuple):
    """Nothing was taken: `needed` blocks do not fit into `free_blocks`."""

    reason: RefusalReason
    free_blocks: int
    needed: int


class Freed(NamedTuple):
    """Blocks that went back to the pool, or into quarantine."""

    num_blocks: int


class Stepped(NamedTuple):
    """What a step did.

    `blocks` is flat in request order; the first `granted` entries of `allocate_ids` were served;
    `refused` tells why the next one was not, or the acquire not in full; `freed_counts` runs
    parallel to `free_ids`, `trimmed_counts` to `trim_ids`. `acquired` are the blocks that the
    engine holds from now on outside any table.
    """

    blocks: list[int]
    granted: int
    refused: Refused | None
    freed_counts: list[int]
    free_blocks: int
    acquired: list[int] = _EMPTY
    trimmed_counts: list[int] = _EMPTY

    @property
    def granted_blocks(self) -> int:
        """How many blocks the step was granted, in tables and outside."""
        return len(self.blocks) + len(self.acquired)


class Attached(NamedTuple):
    """A lease under `epoch`, and what the engine has already.

    `held_blocks` counts its acquired blocks, too. `last_step_id` is that of the last step of this
    epoch, 0 before the first one.
    """

    epoch: int
    ttl_ms: int
    held_blocks: int
    sequences: int
    last_step_id: int
    resumed: bool
    acquired_blocks: int = 0


class Renewed(NamedTuple):
    """The lease lasts for `ttl_ms` from the stamp on."""

    ttl_ms: int


class LimitReached(NamedTuple):
    """The command would cross the named limit."""

    limit: str
    maximum: int


class Fenced(NamedTuple):
    """The command's epoch is not the engine's: `current` is, 0 when it has no lease."""

    current: int


class EngineHeld(NamedTuple):
    """Another client has a lease under this name; unless renewed it ends in `expires_in_ms`."""

    expires_in_ms: int


class IdReused(NamedTuple):
    """A request_id or step_id came before with other content."""

    field: str


class StepOutOfOrder(NamedTuple):
    """A step_id is neither the next one, `expected`, nor the last one again."""

    expected: int


class BlockNotHeld(NamedTuple):
    """A block to release is not an acquired one of the engine; `place` says where it is."""

    block: int
    place: str


class PoolChanged(NamedTuple):
    """The pool was made or deleted."""


class PoolPresent(NamedTuple):
    """There is a pool of that name already."""

    name: str


class PoolAbsent(NamedTuple):
    """There is no pool of that name."""

    name: str


REJECTIONS = (LimitReached, Fenced, EngineHeld, IdReused, StepOutOfOrder, BlockNotHeld)

Command: TypeAlias = (
    Allocate | Free | Step | Attach | Renew | Detach | Expire | Reclaim | EndQuarantine
)
Rejection: TypeAlias = LimitReached | Fenced | EngineHeld | IdReused | StepOutOfOrder | BlockNotHeld
Answer: TypeAlias = Granted | Refused | Freed | Stepped | Attached | Renewed
Outcome: TypeAlias = Answer | Rejection
PoolChange: TypeAlias = CreatePool | DeletePool
PoolRejection: TypeAlias = PoolPresent | PoolAbsent | LimitReached | IdReused
