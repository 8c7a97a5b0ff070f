"""Group commit under random turns: whoever is answered finds its record written, and all are.

Rules:
- Callers come, wait, go away and have nothing to write at random; writes take random turns of the
  loop or a thread, and fail at times.
- A caller that is never answered fails the test.
"""

import asyncio
import threading
from collections.abc import Sequence
from random import Random

import pytest

from kvblock_service.committer import Committer
from kvblock_service.errors import JournalUnwritable
from kvblock_service.journal.interface import JournalError
from tests.examples import examples
from tests.memory_journal import MemoryJournal

SCHEDULES = 150
CALLERS = 12
LAST_RESORT = 20.0


class Slow(MemoryJournal):
    """A journal whose writes take a while, and fail when the seed says so."""

    def __init__(self, random: Random, *, synced: bool) -> None:
        super().__init__(synced=synced)
        self._random = random
        self._may_fail = random.random() < 0.1
        self._writing = threading.Lock()

    def append(self, after: int, records: Sequence[bytes]) -> int:
        assert self._writing.acquire(blocking=False), "two writes at once"
        try:
            threading.Event().wait(self._random.choice((0.0, 0.0, 0.001)))
            if self._may_fail and self._random.random() < 0.3:
                self._may_fail = self._random.random() < 0.5
                raise JournalError("full")
            return super().append(after, records)
        finally:
            self._writing.release()

    def written(self) -> list[bytes]:
        return [entry.record for entry in self.read(0)]


async def call(number: int, committer: Committer, journal: Slow, random: Random) -> None:
    """One caller: perhaps it adds something, then it waits for its answer."""
    for _ in range(random.randrange(6)):
        await asyncio.sleep(random.choice((0.0, 0.0, 0.0005)))
    record = f"{number}".encode()
    adds = random.random() < 0.6
    while True:
        try:
            committer.refuse_when_failing()
            break
        except JournalUnwritable:
            await asyncio.sleep(0.01)
    if adds:
        committer.add(record)
    while True:
        try:
            await committer.settled()
            break
        except JournalUnwritable:
            await asyncio.sleep(0.01)
    assert not adds or record in journal.written()


async def scenario(seed: str, *, synced: bool) -> None:
    random = Random(seed)
    journal = Slow(random, synced=synced)
    committer = Committer(journal)
    tasks = [
        asyncio.create_task(call(number, committer, journal, random)) for number in range(CALLERS)
    ]
    if random.random() < 0.3:
        await asyncio.sleep(0)
        random.choice(tasks).cancel()
    done, pending = await asyncio.wait(tasks, timeout=LAST_RESORT)
    assert not pending, f"{seed}: {len(pending)} callers are never answered"
    for task in done:
        if not task.cancelled():
            task.result()
    assert len(set(journal.written())) == len(journal.written()), f"{seed}: written twice"


@pytest.mark.parametrize("synced", [False, True])
def test_whoever_is_answered_is_written(synced: bool, seed: int) -> None:
    for number in range(examples(SCHEDULES)):
        asyncio.run(scenario(f"{seed}/{number}", synced=synced))
