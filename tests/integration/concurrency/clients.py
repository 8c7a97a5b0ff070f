"""Clients that use a pool at random, and write down what they saw.

What became of an interrupted call is unknown: its blocks, if there are any, are not in the history
until the client has read them in a block table. A client that has interrupted an Allocate does not
use that sequence again; `strays` are those that it has to free in the end.
"""

import asyncio
from collections import Counter
from random import Random

import kvblock
from kvblock import AsyncClient, AsyncSession, Granted, StepPolicy
from tests.integration.concurrency.history import History

PATIENCE = 60.0
STEP_POLICIES = list(StepPolicy)


class Client:
    """One engine: the tables it knows of, and the history that it writes."""

    def __init__(self, kv: AsyncClient, engine: str, history: History, random: Random) -> None:
        self.kv = kv
        self.engine = engine
        self.random = random
        self.tables: dict[int, list[int]] = {}
        self.strays: list[int] = []
        self.seen: Counter[str] = Counter()
        self._history = history
        self._next_id = 0

    async def work(self, rounds: int) -> None:
        """Do so many things."""
        raise NotImplementedError

    def got(self, sequence_id: int, blocks: list[int]) -> None:
        """An answer has granted blocks."""
        self._history.granted(self.engine, blocks)
        self.tables.setdefault(sequence_id, []).extend(blocks)

    def letting_go(self, sequence_id: int) -> list[int]:
        """A free is about to be sent."""
        blocks = self.tables.pop(sequence_id, [])
        self._history.giving_back(self.engine, blocks)
        return blocks

    def some_sequence(self) -> int:
        """One that there is, or a new one."""
        if self.tables and self.random.random() < 0.5:
            return self.random.choice(list(self.tables))
        self._next_id += 1
        return self._next_id

    def a_step(self) -> tuple[list[int], list[int], list[int]]:
        """What to free, what to allocate, and how many of each."""
        free = [one for one in self.tables if self.random.random() < 0.5]
        allocate = list({self.some_sequence() for _ in range(self.random.randrange(4))})
        return free, allocate, [self.random.randint(1, 3) for _ in allocate]

    def stepped(self, allocate: list[int], counts: list[int], result: kvblock.StepResult) -> None:
        """Take the answer of a step apart."""
        self.seen["steps refused" if result.refusal else "steps served"] += 1
        blocks = iter(result.block_numbers)
        served = zip(allocate[: result.granted], counts, strict=False)
        for sequence_id, num_blocks in served:
            self.got(sequence_id, [next(blocks) for _ in range(num_blocks)])
        assert next(blocks, None) is None, "more blocks than the served sequences asked for"

    async def check_tables(self) -> None:
        """The server has the tables that the client knows of, and no others but strays."""
        listed = [row async for row in self.kv.list_sequences(engine=self.engine)]
        known = {row.sequence_id: row.num_blocks for row in listed}
        for stray in self.strays:
            known.pop(stray, None)
        assert known == {one: len(blocks) for one, blocks in self.tables.items()}
        for sequence_id, blocks in self.tables.items():
            table = await self.kv.get_block_table(sequence_id)
            assert table.block_numbers == blocks

    async def free_all(self) -> None:
        """Give everything back, strays too."""
        for sequence_id in list(self.tables):
            blocks = self.letting_go(sequence_id)
            assert await self.kv.free_returning_count(sequence_id) == len(blocks)
        for stray in self.strays:
            self.seen["blocks of strays"] += await self.kv.free_returning_count(stray)


class UnaryClient(Client):
    """Uses every unary method, waits for blocks, and gives up waiting."""

    async def work(self, rounds: int) -> None:
        for _ in range(rounds):
            kinds = [self.allocate, self.wait, self.give_up, self.free, self.step, self.look]
            (kind,) = self.random.choices(kinds, weights=[4, 3, 2, 4, 3, 1])
            await kind()

    async def allocate(self, max_wait: float | None = None) -> None:
        sequence_id = self.some_sequence()
        wanted = self.random.randint(1, 4)
        try:
            answer = await self.kv.allocate(sequence_id, wanted, max_wait=max_wait)
        except kvblock.FailedPreconditionError as full:
            if full.metadata["limit"] != "wait_queue_max":
                raise
            self.seen["wait queue full"] += 1
            return
        if isinstance(answer, Granted):
            self.seen["granted"] += 1
            self.got(sequence_id, answer.block_numbers)
            assert len(answer.block_numbers) == wanted
            assert answer.table_length == len(self.tables[sequence_id])
        else:
            self.seen["refused"] += 1
            assert answer.free_blocks < answer.needed == wanted

    async def wait(self) -> None:
        await self.allocate(max_wait=self.random.choice([0.001, 0.02, 0.1]))

    async def give_up(self) -> None:
        """Cancel a waiting Allocate, or let its deadline pass."""
        self._next_id += 1
        sequence_id = self._next_id
        timeout = self.random.choice([0.001, 0.01, PATIENCE])
        call = asyncio.ensure_future(
            self.kv.allocate(sequence_id, 2, max_wait=PATIENCE, timeout=timeout)
        )
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        if timeout == PATIENCE:
            call.cancel()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, Granted):
            self.got(sequence_id, outcome.block_numbers)
            return
        self.seen[f"gave up: {type(outcome).__name__}"] += 1
        self.strays.append(sequence_id)

    async def free(self) -> None:
        if not self.tables:
            return
        sequence_id = self.random.choice(list(self.tables))
        blocks = self.letting_go(sequence_id)
        if self.random.random() < 0.5:
            assert await self.kv.free_returning_count(sequence_id) == len(blocks)
        else:
            await self.kv.free(sequence_id)

    async def step(self) -> None:
        free, allocate, counts = self.a_step()
        freed = [len(self.letting_go(one)) for one in free]
        policy = self.random.choice(STEP_POLICIES)
        result = await self.kv.step(free=free, allocate=allocate, num_blocks=counts, policy=policy)
        assert result.freed_counts == freed
        self.stepped(allocate, counts, result)

    async def look(self) -> None:
        await self.check_tables()
        stats = (await self.kv.stats()).pools[0]
        assert stats.free_blocks + stats.held_blocks == stats.total_blocks


class SessionClient(Client):
    """Steps in sessions; some it detaches from, some it closes and goes on with in another one."""

    _epoch = 0

    async def work(self, rounds: int) -> None:
        while rounds > 0:
            session = self.kv.session(epoch=self._epoch)
            await session.attach()
            await self.learn(session)
            for _ in range(min(rounds, self.random.randint(1, 12))):
                rounds -= 1
                await self.step(session)
            self._epoch = session.epoch
            ending = self.random.choice([self.detach, self.close, self.interrupt, self.recover])
            await ending(session)
            await session.close()

    async def learn(self, session: AsyncSession) -> None:
        """Read what is left of an earlier session; the attach has ended its stream."""
        rows = [row async for row in self.kv.list_sequences(engine=self.engine)]
        assert session.held_blocks == sum(row.num_blocks for row in rows)
        for row in rows:
            blocks = (await self.kv.get_block_table(row.sequence_id)).block_numbers
            assert len(blocks) == row.num_blocks
            known = self.tables.get(row.sequence_id, [])
            assert blocks[: len(known)] == known
            self.got(row.sequence_id, blocks[len(known) :])
        assert list(self.tables) == [
            one for one in self.tables if one in {r.sequence_id for r in rows}
        ]

    async def step(self, session: AsyncSession) -> None:
        free, allocate, counts = self.a_step()
        freed = [len(self.letting_go(one)) for one in free]
        policy = self.random.choice(STEP_POLICIES)
        result = await session.step(free=free, allocate=allocate, num_blocks=counts, policy=policy)
        assert result.freed_counts == freed
        self.stepped(allocate, counts, result)

    async def detach(self, session: AsyncSession) -> None:
        held = sum(len(self.letting_go(one)) for one in list(self.tables))
        assert await session.detach() == held
        self._epoch = 0
        self.seen["detached"] += 1

    async def close(self, session: AsyncSession) -> None:
        await session.close()
        self.seen["closed"] += 1

    async def interrupt(self, session: AsyncSession) -> None:
        """Cancel a step on its way: the next attach tells what became of it."""
        free, allocate, counts = self.a_step()
        for one in free:
            self.letting_go(one)
        call = asyncio.ensure_future(session.step(free=free, allocate=allocate, num_blocks=counts))
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        call.cancel()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, kvblock.StepResult):
            self.stepped(allocate, counts, outcome)
        self.seen["interrupted"] += 1

    async def recover(self, session: AsyncSession) -> None:
        """Cancel a step on its way, and ask what became of it; then detach."""
        free, allocate, counts = self.a_step()
        freed = [len(self.letting_go(one)) for one in free]
        call = asyncio.ensure_future(session.step(free=free, allocate=allocate, num_blocks=counts))
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        call.cancel()
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if session.unanswered:
            outcome = await session.recover()
            self.seen["recovered"] += 1
        elif not isinstance(outcome, kvblock.StepResult):
            # Cancelled before it began.
            outcome = await session.step(free=free, allocate=allocate, num_blocks=counts)
        assert outcome.freed_counts == freed
        self.stepped(allocate, counts, outcome)
        await self.detach(session)

    async def free_all(self) -> None:
        """A last session that detaches frees whatever there is."""
        async with self.kv.session(epoch=self._epoch) as session:
            await self.learn(session)
            await self.check_tables()
            await self.detach(session)
