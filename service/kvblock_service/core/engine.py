"""What a pool has for one engine.

Rules:
- A table has at least one block. A table of one block may be that block's number itself, which
  costs nothing to make; every other one is an array. Tables are changed by `blocks` alone.
- `acquired` are its blocks outside any table.
- `first_indexes` has the sequences whose tables were trimmed at the head, and how many blocks each
  of them has dropped there.
- `epoch` is 0 while the engine has no lease; `deadline_ms` and `ttl_ms` mean nothing then.
- `last_step` is of the current epoch.
"""

from array import array
from collections.abc import Sequence
from typing import TypeAlias

from kvblock_service.core.acquired import AcquiredBlocks
from kvblock_service.core.commands import Step, Stepped

Table: TypeAlias = "int | array[int]"


class Engine:
    """One engine's block tables by sequence id, its acquired blocks, and its lease.

    `held` is how many blocks it has in all.
    `refusals` are its refused allocations since it came, or since the server's start: they decide
    nothing, and no snapshot has them.
    """

    __slots__ = (
        *("acquired", "deadline_ms", "epoch", "first_indexes", "held", "last_step"),
        *("name", "refusals", "tables", "ttl_ms"),
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: dict[int, Table] = {}
        self.first_indexes: dict[int, int] = {}
        self.acquired = AcquiredBlocks()
        self.held = 0
        self.refusals = 0
        self.epoch = 0
        self.ttl_ms = 0
        self.deadline_ms = 0
        self.last_step: tuple[Step, Stepped] | None = None

    @property
    def last_step_id(self) -> int:
        """The id of the last step of this epoch, 0 before the first one."""
        return self.last_step[0].step_id if self.last_step else 0


def blocks_of(table: Table) -> Sequence[int]:
    """The blocks of a table, in table order."""
    return (table,) if isinstance(table, int) else table
