"""Connections that are cut between a change and its answer, ten thousand times."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from random import Random

import kvblock
from tests.conftest import ServerFactory
from tests.integration.exactly_once.engines import Books, Engine, live, live_async
from tests.integration.proxy import Proxy

CUTS = int(os.environ.get("KVBLOCK_TEST_CUTS") or 10_000)
BLOCKS = 240
SYNC_ENGINES = 15
ASYNC_ENGINES = 15
TIMEOUT = 120.0
"""Seconds; a call that is unlucky again and again pauses longer each time."""


def test_no_block_is_granted_twice_and_none_leaks(server_factory: ServerFactory, seed: int) -> None:
    server = server_factory((f"main:total={BLOCKS},block_size=16,device=0",))
    random = Random(seed)
    books = Books()
    ends: list[BaseException | None] = []
    with Proxy(server.address, Random(random.random())) as proxy:

        def goes_on() -> bool:
            return proxy.cuts < CUTS and not any(ends)

        def engine(number: int) -> Engine:
            return Engine(f"engine-{number}", books, Random(random.random()))

        proxy.answers_lost, proxy.requests_lost = 0.25, 0.02
        engines = [engine(number) for number in range(SYNC_ENGINES + ASYNC_ENGINES)]
        threads = [
            threading.Thread(target=run, args=(ends, proxy, one, number, goes_on))
            for number, one in enumerate(engines[:SYNC_ENGINES])
        ]
        threads.append(
            threading.Thread(target=run_async, args=(ends, proxy, engines[SYNC_ENGINES:], goes_on))
        )
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{proxy.cuts} answers lost in {time.monotonic() - began:.1f} s")
        for end in ends:
            if end is not None:
                raise end
        assert proxy.cuts >= CUTS
    with kvblock.connect(server.address) as kv:
        (pool,) = kv.stats().pools
        assert all(kv.audit())
    # Engines without a lease have freed by calls, the others by their detach.
    assert (pool.held_blocks, pool.free_blocks, pool.quarantined_blocks) == (0, BLOCKS, 0)
    assert (pool.allocated_blocks_total, pool.freed_blocks_total) == (books.granted, books.freed)
    assert (pool.reclaimed_blocks_total, pool.expired_leases_total) == (0, 0)
    assert books.owners == {}


def run(
    ends: list[BaseException | None],
    proxy: Proxy,
    engine: Engine,
    number: int,
    goes_on: Callable[[], bool],
) -> None:
    """The life of an engine with a synchronous client; each third has another kind."""
    try:
        with kvblock.connect(proxy.address, engine=engine.name, timeout=TIMEOUT) as kv:
            if number % 3 == 0:
                session = kv.session(ttl=60.0)
                session.attach()
                live(engine.steps(session, goes_on))
                live(engine.compare(kv))
                live(engine.detach(session))
            elif number % 3 == 1:
                lease = kv.attach_engine(ttl=60.0)
                live(engine.unary(kv, goes_on))
                live(engine.compare(kv))
                live(engine.detach(lease))
            else:
                live(engine.unary(kv, goes_on))
                live(engine.compare(kv))
                live(engine.free_all(kv))
    except BaseException as error:  # noqa: BLE001 - raised again by the test
        ends.append(error)


def run_async(
    ends: list[BaseException | None],
    proxy: Proxy,
    engines: list[Engine],
    goes_on: Callable[[], bool],
) -> None:
    """The same with asyncio, all in one loop."""

    async def one(engine: Engine, number: int) -> None:
        client = kvblock.connect_async(proxy.address, engine=engine.name, timeout=TIMEOUT)
        async with client as kv:
            if number % 3 == 0:
                session = kv.session(ttl=60.0)
                await session.attach()
                await live_async(engine.steps(session, goes_on))
                await live_async(engine.compare(kv))
                await live_async(engine.detach(session))
            elif number % 3 == 1:
                lease = await kv.attach_engine(ttl=60.0)
                await live_async(engine.unary(kv, goes_on))
                await live_async(engine.compare(kv))
                await live_async(engine.detach(lease))
            else:
                await live_async(engine.unary(kv, goes_on))
                await live_async(engine.compare(kv))
                await live_async(engine.free_all(kv))

    async def everybody() -> None:
        await asyncio.gather(*(one(engine, number) for number, engine in enumerate(engines)))

    try:
        asyncio.run(everybody())
    except BaseException as error:  # noqa: BLE001 - raised again by the test
        ends.append(error)
