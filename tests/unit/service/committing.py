"""A journal that remembers its writes, and a pool whose records go into it."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from kvblock_service.committer import Committer
from kvblock_service.core.commands import (
    Command,
    Stamp,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.errors import JournalUnwritable
from kvblock_service.journal.interface import JournalError
from kvblock_service.pool_host import PoolHost
from tests.memory_journal import MemoryJournal


class Shelf(MemoryJournal):
    """A journal that remembers its writes, and fails as long as it is told to."""

    def __init__(self, *, synced: bool = False) -> None:
        super().__init__(synced=synced)
        self.writes: list[list[bytes]] = []
        self.problem = ""
        self.broken: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def append(self, after: int, records: Sequence[bytes]) -> int:
        assert self.open.wait(60)
        if self.problem:
            raise JournalError(self.problem)
        if self.broken:
            raise self.broken
        position = super().append(after, records)
        self.writes.append(list(records))
        return position

    @property
    def records(self) -> list[bytes]:
        return [record for write in self.writes for record in write]


def encode(pool: str, _: Stamp, command: Command) -> bytes:
    return f"{pool} {type(command).__name__} {command[-2]}".encode()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def hosted(shelf: Shelf) -> PoolHost:
    pool = Pool(Geometry("main", 4, 16, 0), Bounds(8, 8, 8))
    return PoolHost(pool, 8, None, Committer(shelf), encode=encode)


async def written(host: PoolHost) -> None:
    """Wait until what was carried out is in the journal, as a client does that tries again."""
    while True:
        try:
            return await host.settled()
        except JournalUnwritable:
            await asyncio.sleep(0.01)


async def add(committer: Committer, shelf: Shelf, record: bytes) -> None:
    committer.add(record)
    await committer.settled()
    assert record in shelf.records
