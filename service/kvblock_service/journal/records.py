"""What is written to a journal: one record for each thing that changed a pool.

Rules:
- A command is written when the pool carried it out: not when it was rejected, not when it was a
  repeat, and not for a renewal, since a restart gives every lease its full TTL anyway.
- Refusals are written: they are counted, and remembered by their request_id.
- A pool's life is written, too: pools can be made and deleted while a server runs.
"""

from typing import NamedTuple, TypeAlias

from kvblock_service.core.commands import REJECTIONS, Command, Outcome, PoolChange, Renew, Stamp


class CommandRecord(NamedTuple):
    """A command that the pool of that name carried out."""

    pool: str
    stamp: Stamp
    command: Command


Record: TypeAlias = CommandRecord | PoolChange


def is_persisted(command: Command, outcome: Outcome, replayed: bool) -> bool:
    """Whether a command belongs into the journal, by what `Pool.apply` answered to it."""
    return type(command) is not Renew and not replayed and not isinstance(outcome, REJECTIONS)
