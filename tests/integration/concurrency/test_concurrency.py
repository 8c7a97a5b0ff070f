"""64 clients on a pool that is too small for them: nobody ever has a block of another's."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from random import Random

import pytest

import kvblock
from tests.integration.concurrency.clients import PATIENCE, Client, SessionClient, UnaryClient
from tests.integration.concurrency.history import History

CLIENTS = 64
BLOCKS = 96
ROUNDS = 30
POOL = f"main:total={BLOCKS},block_size=16,device=0"


@pytest.mark.parametrize("listener", ["unix", "tcp"])
def test_no_block_is_in_two_tables(listener: str, seed: int) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--wait-queue-max", "4", "--page-size-max", "7"]
    with kvblock.EmbeddedServer([POOL], arguments) as server:
        address = server.addresses[0 if listener == "unix" else 1]
        history, seen = asyncio.run(storm(address, seed))
        with kvblock.connect(address) as kv:
            assert history.overlaps() == []
            assert history.held() == set()
            assert history.grants > 5 * BLOCKS
            (report,) = kv.audit()
            assert report.clean, report.violations
            assert (report.free_blocks, report.held_blocks, report.sequences) == (BLOCKS, 0, 0)
            (pool,) = kv.stats().pools
            assert pool.allocated_blocks_total == pool.freed_blocks_total
            assert (pool.waiting, pool.engines) == (0, ())
    assert "Traceback" not in server.stderr
    # All that the storm is about has happened.
    print(dict(seen))
    for event in (
        "refused",
        "wait queue full",
        "steps refused",
        "detached",
        "closed",
        "interrupted",
    ):
        assert seen[event], f"no client was {event}"
    assert any(event.startswith("gave up") for event in seen)


async def storm(address: str, seed: int) -> tuple[History, Counter[str]]:
    """Let the clients work, check what they know, and let them give everything back."""
    history = History()
    clients: list[Client] = []
    async with AsyncExitStack() as stack:
        for number in range(CLIENTS):
            engine = f"engine-{number}"
            kv = kvblock.connect_async(address, engine=engine, timeout=PATIENCE)
            await stack.enter_async_context(kv)
            kind = SessionClient if number % 2 else UnaryClient
            clients.append(kind(kv, engine, history, Random(f"{seed}/{number}")))
        await asyncio.gather(*(client.work(ROUNDS) for client in clients))
        for client in clients:
            if isinstance(client, UnaryClient):
                await client.check_tables()
        for client in clients:
            await client.free_all()
    return history, sum((client.seen for client in clients), Counter())
