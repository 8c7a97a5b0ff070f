"""What can be asked of a pool, and what it answers.

Rules:
- A command is a value that was checked before it came here: ids are unsigned 64-bit integers,
  counts are at least 1, no id stands twice in one column of a step.
- A refusal and a crossed limit are outcomes, never exceptions; both leave the tables as they were.
- Lists in a command or an outcome belong to its receiver's reading only: nobody changes them.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias


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
    sequence_id: int
    num_blocks: int


class Free(NamedTuple):
    """Return all blocks of a sequence; an unknown sequence has none."""

    engine: str
    sequence_id: int


class Release(NamedTuple):
    """Return all blocks of all sequences of an engine."""

    engine: str


class Step(NamedTuple):
    """One engine iteration: all frees, then the allocations in order.

    `num_blocks` runs parallel to `allocate_ids`; empty means one block each.
    """

    engine: str
    free_ids: Sequence[int]
    allocate_ids: Sequence[int]
    num_blocks: Sequence[int]
    policy: StepPolicy


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
    """Blocks that went back to the pool."""

    num_blocks: int


class Stepped(NamedTuple):
    """What a step did.

    `blocks` is flat in request order; the first `granted` entries of `allocate_ids` were served;
    `refused` tells why the next one was not; `freed_counts` runs parallel to `free_ids`.
    """

    blocks: list[int]
    granted: int
    refused: Refused | None
    freed_counts: list[int]
    free_blocks: int


class LimitReached(NamedTuple):
    """The command would cross the named limit; it changed nothing."""

    limit: str
    maximum: int


Command: TypeAlias = Allocate | Free | Release | Step
Outcome: TypeAlias = Granted | Refused | Freed | Stepped | LimitReached
