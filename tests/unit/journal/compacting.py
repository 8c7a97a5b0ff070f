"""A pool with a journal on files whose snapshots are made beside it."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvblock_service.core.commands import Stamp, Step, StepPolicy
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.journal.compaction import Compactor, SnapshotLimits
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.interface import LogEvent
from kvblock_service.journal.reader import FileReader
from kvblock_service.journal.recovery import recover
from tests.unit.journal.kept import BOUNDS, FLOOR, begin, carry_out, state_of

LIMITS = SnapshotLimits(records=50, bytes=1 << 40)
ALL, IN_ORDER = StepPolicy.ALL_OR_NOTHING, StepPolicy.IN_ORDER_UNTIL_REFUSED
Make = Callable[..., Compactor]


class Server:
    """A pool and its journal, with commands that make a difference each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = FileJournal(directory, FLOOR)
        self.pool = begin(self.journal)
        self.pool.bounds = Bounds(9, 99, BOUNDS.request_ids_max)
        self.number = 0

    def work(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            stamp = Stamp(self.number, self.number, "")
            if self.number % 7:
                command = Step("a", 0, "", 0, [max(0, self.number - 9)], [self.number], [], ALL)
            else:
                command = Step("b", 0, "", 0, [], [3], [], IN_ORDER)
            carry_out(self.journal, self.pool, command, stamp)

    def check(self) -> None:
        """What a restart would find now."""
        self.journal.settle()
        found = found_in(self.directory)
        assert state_of(found) == state_of(self.pool)


def found_in(directory: Path) -> Pool:
    (entry,) = recover(FileReader(directory, FLOOR), BOUNDS).state.pools
    return entry.pool


def until(compactor: Compactor, done: Callable[[LogEvent], bool]) -> LogEvent:
    """Tick until there is a event of that kind."""
    while True:
        for event in compactor.tick():
            if done(event):
                return event
        os.sched_yield()


@contextmanager
def no_more_files() -> Iterator[None]:
    """Nothing can be opened, as in a server that has too many connections."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
