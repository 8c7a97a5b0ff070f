"""What is written to a journal: one record for each thing that changed a pool.

Rules:
- A command is written when the pool carried it out: not when it was rejected, not when it was a
  repeat, and not for a renewal, since a restart gives every lease its full TTL anyway.
- Refusals are written: they are counted, and remembered by their request_id.
- A pool's life is written, too: pools can be made and deleted while a server runs. Such a change is
  remembered by its request_id, the last CHANGES_MAX of them.
"""

from typing import NamedTuple, TypeAlias

from kvblock_service.core.commands import REJECTIONS, Command, Outcome, Renew, Stamp
from kvblock_service.core.pool import Geometry

CHANGES_MAX = 1024
"""Changes of the pools that are remembered by their request_id."""


class CommandRecord(NamedTuple):
    """A command that the pool of that name carried out."""

    pool: str
    stamp: Stamp
    command: Command


class PoolCreated(NamedTuple):
    """A pool came into being, empty.

    Its epochs are greater than `epoch_floor`. `configured`: it was in the configuration of the
    server, not made at run time. `quarantine_ms` is that of a pool that was made at run time: how
    long the blocks of a vanished engine wait, None: for its TTL. `request_id` is that of the call
    that asked for it, empty when it had none.
    """

    geometry: Geometry
    epoch_floor: int
    configured: bool
    quarantine_ms: int | None = None
    request_id: str = ""


class PoolDeleted(NamedTuple):
    """The pool of that name is gone. `request_id`: see PoolCreated."""

    pool: str
    request_id: str = ""


PoolChange: TypeAlias = PoolCreated | PoolDeleted
Record: TypeAlias = CommandRecord | PoolChange


def remember(changes: dict[str, PoolChange], change: PoolChange) -> None:
    """Put a change behind those that are remembered; the oldest goes when they are too many."""
    if change.request_id:
        changes.pop(change.request_id, None)
        changes[change.request_id] = change
        if len(changes) > CHANGES_MAX:
            del changes[next(iter(changes))]


def is_kept(command: Command, outcome: Outcome, repeated: bool) -> bool:
    """Whether a command with this outcome belongs into the journal.

    `repeated` is `Pool.repeated` right after `apply`.
    """
    return type(command) is not Renew and not repeated and not isinstance(outcome, REJECTIONS)
