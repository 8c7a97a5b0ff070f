"""Engines that use a pool at random and keep books of what they were answered.

Rules:
- An engine is a generator of calls, so that one text serves both clients: it yields a method and
  its arguments, and is sent the answer.
- A block that is granted must have no owner in the books; it loses its owner before the free is
  sent, since another engine may get it before the free's answer is here.
"""

import threading
from collections.abc import Callable, Generator
from random import Random
from typing import Any, NamedTuple, TypeAlias

import kvblock


class Call(NamedTuple):
    """What to call next."""

    method: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}  # noqa: RUF012 - never changed


Life: TypeAlias = Generator[Call, Any, None]
SEQUENCES = 6


class Books:
    """Who owns which block, as far as all engines together were told."""

    def __init__(self) -> None:
        self.owners: dict[int, str] = {}
        self.granted = 0
        self.freed = 0
        self._lock = threading.Lock()

    def grant(self, engine: str, blocks: list[int]) -> None:
        """An answer has granted blocks."""
        with self._lock:
            for block in blocks:
                owner = self.owners.setdefault(block, engine)
                assert owner == engine, f"block {block} of {owner} was granted to {engine}"
            assert len(set(blocks)) == len(blocks)
            self.granted += len(blocks)

    def give_back(self, blocks: list[int]) -> None:
        """A free is about to be sent."""
        with self._lock:
            for block in blocks:
                del self.owners[block]
            self.freed += len(blocks)


class Engine:
    """One engine's tables, and the calls that change them."""

    def __init__(self, name: str, books: Books, random: Random) -> None:
        self.name = name
        self.tables: dict[int, list[int]] = {}
        self._books = books
        self._random = random

    def unary(self, kv: Any, goes_on: Callable[[], bool]) -> Life:
        """Allocate, Free, FreeReturningCount and Step."""
        while goes_on():
            kind = self._random.randrange(4)
            sequence_id = self._random.randrange(SEQUENCES)
            if kind == 0:
                wanted = self._random.randint(1, 3)
                answer = yield Call(kv.allocate, (sequence_id, wanted))
                if isinstance(answer, kvblock.Granted):
                    self._take(sequence_id, answer.block_numbers)
                    assert answer.table_length == len(self.tables[sequence_id])
            elif kind == 1:
                count = len(self._let_go(sequence_id))
                answer = yield Call(kv.free_returning_count, (sequence_id,))
                assert answer == count, f"{self.name} freed {answer} blocks instead of {count}"
            elif kind == 2:
                self._let_go(sequence_id)
                yield Call(kv.free, (sequence_id,))
            else:
                yield from self._step(kv.step)

    def steps(self, session: Any, goes_on: Callable[[], bool]) -> Life:
        """Steps of a session, and now and then a unary call's check of a table."""
        while goes_on():
            yield from self._step(session.step)

    def compare(self, kv: Any) -> Life:
        """The server has the tables that were answered, and no others."""
        rows = yield Call(kv.list_sequences, (), {"engine": self.name})
        told = {one: len(blocks) for one, blocks in self.tables.items()}
        assert {row.sequence_id: row.num_blocks for row in rows} == told, self.name
        for sequence_id, blocks in self.tables.items():
            table = yield Call(kv.get_block_table, (sequence_id,))
            assert table.block_numbers == blocks, self.name

    def detach(self, holder: Any) -> Life:
        """Leave; the number of freed blocks is that of the books."""
        count = sum(len(self._let_go(one)) for one in list(self.tables))
        freed = yield Call(holder.detach)
        assert freed == count, f"{self.name} was told of {freed} freed blocks instead of {count}"

    def free_all(self, kv: Any) -> Life:
        """Leave without a lease."""
        for sequence_id in list(self.tables):
            count = len(self._let_go(sequence_id))
            freed = yield Call(kv.free_returning_count, (sequence_id,))
            assert freed == count, f"{self.name} freed {freed} blocks instead of {count}"

    def _step(self, step: Callable[..., Any]) -> Life:
        ids = range(SEQUENCES)
        free = self._random.sample(ids, self._random.randrange(3))
        allocate = self._random.sample(ids, self._random.randrange(3))
        counts = [self._random.randint(1, 3) for _ in allocate]
        policy = self._random.choice(list(kvblock.StepPolicy))
        freed = [len(self._let_go(one)) for one in free]
        work = {"free": free, "allocate": allocate, "num_blocks": counts, "policy": policy}
        result = yield Call(step, (), work)
        assert result.freed_counts == freed, self.name
        blocks = iter(result.block_numbers)
        for sequence_id, count in list(zip(allocate, counts, strict=True))[: result.granted]:
            self._take(sequence_id, [next(blocks) for _ in range(count)])
        assert next(blocks, None) is None

    def _take(self, sequence_id: int, blocks: list[int]) -> None:
        self._books.grant(self.name, blocks)
        self.tables.setdefault(sequence_id, []).extend(blocks)

    def _let_go(self, sequence_id: int) -> list[int]:
        blocks = self.tables.pop(sequence_id, [])
        self._books.give_back(blocks)
        return blocks


def live(life: Life) -> None:
    """Make an engine's calls with a synchronous client."""
    try:
        call = next(life)
        while True:
            call = life.send(call.method(*call.arguments, **call.keywords))
    except StopIteration:
        return


async def live_async(life: Life) -> None:
    """Make an engine's calls with an asyncio client."""
    try:
        call = next(life)
        while True:
            answer = call.method(*call.arguments, **call.keywords)
            if hasattr(answer, "__aiter__"):
                call = life.send([row async for row in answer])
            else:
                call = life.send(await answer)
    except StopIteration:
        return
