"""BlockPool against real servers, by both clients."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

import kvblock
from kvblock import (
    ClosedError,
    DeadlineExceededError,
    InvalidArgumentError,
    LeaseLostError,
    RefusalReason,
    Refused,
    UnavailableError,
    UsageError,
)
from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import PATIENCE, Losses, through
from tests.integration.proxy import Proxy

BLOCKS = 64


def made(flavour: Flavour, session: Any, **options: Any) -> Any:
    """A block pool, which the asyncio client makes in its loop."""
    if flavour.name == "sync":
        return kvblock.BlockPool(session, **options)

    async def make() -> kvblock.AsyncBlockPool:
        return kvblock.AsyncBlockPool(session, **options)

    return flavour.do(make())


@contextmanager
def pool_of(flavour: Flavour, kv: Any, engine: str = "e", **terms: Any) -> Iterator[Any]:
    session = kv.session(engine=engine, recall=True, **terms)
    with flavour.entered(session), flavour.entered(made(flavour, session)) as pool:
        yield pool


def held(observer: kvblock.Client, engine: str = "e") -> int:
    (row,) = observer.stats(engine=engine).pools[0].engines
    assert row.held_blocks == row.acquired_blocks
    return row.held_blocks


@pytest.fixture
def observer(server: kvblock.EmbeddedServer) -> Iterator[kvblock.Client]:
    with kvblock.connect(server.address, timeout=PATIENCE) as client:
        yield client


def test_blocks_and_their_order(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    with pool_of(flavour, connect(server)) as pool:
        # A first request fetches for four iterations, or an eighth of the pool.
        assert flavour.do(pool.acquire(3)) == [0, 1, 2]
        assert (pool.ready_blocks, pool.free_blocks, held(observer)) == (8, BLOCKS - 3, 11)
        assert pool.usage == 3 / BLOCKS
        assert flavour.do(pool.acquire()) == [3]
        pool.release([1, 3])
        assert flavour.do(pool.acquire(3)) == [3, 1, 4]
        flavour.do(pool.flush(wait=True))
        assert held(observer) == 5 + pool.ready_blocks
    assert observer.stats().pools[0].held_blocks == 0


def test_leaving_gives_the_stash_back_and_nothing_else(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    kv = connect(server)
    with flavour.entered(kv.session(engine="e")) as session:
        with flavour.entered(made(flavour, session)) as pool:
            assert flavour.do(pool.acquire(3)) == [0, 1, 2]
        assert held(observer) == 3
        with pytest.raises(ClosedError):
            flavour.do(pool.acquire())
        flavour.do(pool.close())


def test_a_refusal_is_a_value_and_keeps_nothing_from_others(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    with pool_of(flavour, connect(server)) as pool:
        assert isinstance(observer.allocate(1, 40, engine="other"), kvblock.Granted)
        refused = flavour.do(pool.acquire(30))
        assert isinstance(refused, Refused)
        assert refused.reason is RefusalReason.POOL_EXHAUSTED
        assert (refused.needed, pool.ready_blocks) == (30, 24)
        flavour.do(pool.flush(wait=True))
        assert (pool.ready_blocks, held(observer)) == (0, 0)
        # It is not asked for again, and so it is not lacked any more.
        (row,) = observer.stats(engine="e").pools[0].engines
        assert row.want_blocks == 30
        flavour.do(pool.flush(wait=True))
        (row,) = observer.stats(engine="e").pools[0].engines
        assert row.want_blocks == 0
        too_many = flavour.do(pool.acquire(BLOCKS + 1))
        assert (too_many.reason, too_many.retry_after) == (RefusalReason.EXCEEDS_POOL, None)


@pytest.mark.parametrize("blocks", [[0, 9], [0, 0], [64], [-1]])
def test_a_wrong_release_changes_nothing(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, blocks: list[int]
) -> None:
    with pool_of(flavour, connect(server)) as pool:
        assert flavour.do(pool.acquire(2)) == [0, 1]
        with pytest.raises(InvalidArgumentError, match=r"blocks\[\d\]: "):
            pool.release(blocks)
        assert flavour.do(pool.acquire(1)) == [2]
        pool.release([2, 1, 0])


@pytest.mark.parametrize("count", [0, -1, "2", 2**32])
def test_a_wrong_count_changes_nothing(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, count: object
) -> None:
    with pool_of(flavour, connect(server)) as pool:
        with pytest.raises(InvalidArgumentError, match="count"):
            flavour.do(pool.acquire(count))
        assert flavour.do(pool.acquire()) == [0]


def test_a_steady_engine_makes_next_to_no_calls(
    flavour: Flavour, connect: Connect, server_factory: ServerFactory
) -> None:
    server = server_factory(["main:total=4096"])
    session = connect(server).session(engine="e")
    with flavour.entered(session), flavour.entered(made(flavour, session)) as pool:
        for _ in range(200):
            blocks = [flavour.do(pool.acquire())[0] for _ in range(32)]
            pool.release(blocks)
            flavour.do(pool.flush())
        # The first iteration fetches ever more at a time.
        assert session._last_step_id <= 6


def test_a_lost_lease_ends_it_though_blocks_are_ready(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    losses = Losses()
    kv = connect(server)
    session = kv.session(engine="e", ttl=1.0, on_lease_lost=losses)
    flavour.do(session.attach())
    pool = made(flavour, session)
    assert flavour.do(pool.acquire(3)) == [0, 1, 2]
    assert pool.ready_blocks
    observer.reclaim_engine("e", force=True)
    assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
    for use in (pool.acquire, lambda: pool.release([0]), pool.flush):
        with pytest.raises(LeaseLostError):
            flavour.do(use())
    flavour.do(session.close())


def test_it_goes_on_after_a_server_that_was_killed(
    flavour: Flavour, server_factory: ServerFactory, tmp_path: Path
) -> None:
    pools, state = [f"main:total={BLOCKS}"], ["--state-dir", str(tmp_path / "state")]
    with ExitStack() as stack:
        first = stack.enter_context(kvblock.EmbeddedServer(pools, state))
        proxy = stack.enter_context(Proxy(first.address, Random(0)))
        kv = stack.enter_context(flavour.entered(through(flavour, proxy)))
        session = stack.enter_context(flavour.entered(kv.session(ttl=60.0)))
        pool = stack.enter_context(flavour.entered(made(flavour, session)))
        mine = flavour.do(pool.acquire(3))
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        usual = session._settings
        session._settings = usual._replace(timeout=0.2)
        with pytest.raises((UnavailableError, DeadlineExceededError)):
            flavour.do(pool.acquire(20))
        session._settings = usual
        second = server_factory(pools, state)
        proxy.target = second.address.removeprefix("unix:")
        # The step that was not answered is settled first: what it got is there, once.
        mine += flavour.do(pool.acquire(20))
        assert len(set(mine)) == 23
        flavour.do(pool.flush(wait=True))
        with kvblock.connect(second.address, timeout=PATIENCE) as looks_on:
            assert held(looks_on) == 23 + pool.ready_blocks
            pool.release(mine)
            flavour.do(pool.close())
            assert held(looks_on) == 0


def test_what_others_lack_goes_back_without_a_call_of_the_engine(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    with pool_of(flavour, connect(server)) as pool, observer.session(engine="poor") as poor:
        mine = flavour.do(pool.acquire(30))
        assert pool.ready_blocks == 8
        flavour.do(pool.flush(cached_blocks=5, wait=True))
        assert poor.step(allocate=[1], num_blocks=[26]).granted == 1
        lacking = kvblock.EngineHints(want_blocks=10)
        poor.renew(hints=lacking)
        # What is ready goes back by itself; the rest is up to the engine's cache.
        while held(observer) > 30:
            flavour.meanwhile(lambda: poor.renew(hints=lacking))
        assert pool.ready_blocks == 0
        while pool.owed_blocks != 2:
            flavour.meanwhile(lambda: poor.renew(hints=lacking))
        pool.release(mine[:2])
        flavour.do(pool.flush(cached_blocks=3, wait=True))
        # Until it is taken, what is free may go into the stash once more, and comes back again.
        while not poor.step(allocate=[2], num_blocks=[10]).granted:
            flavour.meanwhile(lambda: poor.renew(hints=lacking))


def test_threads_share_it(server_factory: ServerFactory, seed: int) -> None:
    server = server_factory(["main:total=512"])
    out: set[int] = set()
    lock = threading.Lock()
    ended: list[int] = []

    def use(pool: kvblock.BlockPool, number: int) -> None:
        draw, mine = Random(seed + number), list[int]()
        for _ in range(300):
            got = pool.acquire(draw.randrange(1, 9))
            if isinstance(got, list):
                with lock:
                    assert out.isdisjoint(got)
                    out.update(got)
                mine += got
            back = draw.randrange(len(mine) + 1)
            with lock:
                out.difference_update(mine[:back])
            pool.release(mine[:back])
            del mine[:back]
            pool.flush()
        ended.append(number)

    with kvblock.connect(server.address, engine="e") as kv, kv.session() as session:
        with kvblock.BlockPool(session) as pool:
            threads = [threading.Thread(target=use, args=(pool, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(ended) == [0, 1, 2, 3]
        assert held(kv) == len(out)


def test_it_is_its_own_process_s(server: kvblock.EmbeddedServer) -> None:
    kv = kvblock.connect(server.address, engine="e")
    with kv, kv.session() as session, kvblock.BlockPool(session) as pool:
        assert pool.acquire(2) == [0, 1]
        child = os.fork()
        if not child:
            code = 1
            try:
                pool.acquire()
            except UsageError:
                pool.__exit__(None, None, None)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pool.acquire(1) == [2]
        assert held(kv) == 3 + pool.ready_blocks
