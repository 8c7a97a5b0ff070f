"""The Redis scripts do what a step does, and keep the books that a pool of ours keeps."""

import random
import shutil

import pytest
import redis

from benchmarks.redis_scripts import PLAIN, TUNED
from benchmarks.redis_store import RedisStore, Stepped, make_pool, redis_server
from benchmarks.workload import Step
from kvblock_service.core import commands as core
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.pool import Bounds, Geometry, Pool

NOW = core.Stamp(1, 1, "")

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="there is no redis-server here; make test installs Debian's where it can",
)


class Ours:
    """A pool with two engines that have a lease."""

    def __init__(self, engines: str) -> None:
        self.pool = Pool(Geometry("bench", 100, 16, 0), Bounds(2, 1000, 10))
        self._epochs = {}
        for name in engines:
            attached, _ = self.pool.apply(core.Attach(name, 0, "", False, 1000, 0), NOW)
            assert isinstance(attached, core.Attached)
            self._epochs[name] = attached.epoch

    def step(self, engine: str, step: Step) -> Stepped:
        command = core.Step(
            engine,
            self._epochs[engine],
            "",
            self.pool.engines[engine].last_step_id + 1,
            *step,
            [],
            core.StepPolicy.ALL_OR_NOTHING,
        )
        outcome, _ = self.pool.apply(command, NOW)
        assert isinstance(outcome, core.Stepped)
        blocks, _, refused, counts, free = outcome[:5]
        why = () if refused is None else (refused.reason.name, refused.needed)
        return Stepped(blocks, counts, free, *why)


@pytest.mark.parametrize("script", [TUNED, PLAIN], ids=["tuned", "plain"])
def test_a_script_does_what_a_step_does(seed: int, script: str) -> None:
    draw = random.Random(seed)
    ours = Ours("ab")
    with redis_server() as socket, redis.Redis(unix_socket_path=socket) as books:
        make_pool(socket, 100, database=0)
        stores = {engine: RedisStore(socket, 0, engine, script) for engine in "ab"}
        for number in range(400):
            engine = draw.choice("ab")
            wanted = draw.choice([0, 1, 30, 30, 30, 101])
            step = Step(
                draw.sample(range(120), draw.randrange(60)), draw.sample(range(120), wanted)
            )
            assert stores[engine].step(step) == ours.step(engine, step)
            if number % 40 == 0:
                check_books(books, ours.pool)
                one = Step([draw.randrange(120)], [])
                ours.step("a", one)
                check_contract(stores["a"], one, books)
        for store in stores.values():
            store.close()


def check_books(books: redis.Redis, pool: Pool) -> None:
    """What the script has kept is what the pool has: counters, held blocks, and owners."""
    counters = {name: int(n) for name, n in books.hgetall("bench:counters").items()}
    assert counters.get(b"allocated", 0) == pool.blocks.allocated_total
    assert counters.get(b"freed", 0) == pool.blocks.freed_total
    for reason, count in pool.refused_total.items():
        assert counters.get(f"refused:{reason.name}".encode(), 0) == count
    owners = books.hgetall("bench:owners")
    for name, engine in pool.engines.items():
        assert int(books.hget("bench:held", name) or 0) == engine.held
        if engine.last_step_id:
            assert int(books.hget(f"bench:{name}:session", "deadline") or 0) > 1_700_000_000_000
        for table in engine.tables.values():
            for block in blocks_of(table):
                owner, since = owners[b"%d" % block].split()
                assert owner == name.encode()
                assert int(since) > 1_700_000_000_000


def check_contract(store: RedisStore, step: Step, books: redis.Redis) -> None:
    """The last step again answers the same; anything else is an error; neither changes a thing."""
    answer = store.step(step)
    step_id = int(books.hget("bench:a:session", "step_id") or 0)
    before = kept(books)
    assert store.send(step, step_id) == answer
    for wrong, number in (
        (Step([], []), step_id),
        (step, step_id + 2),
        (step, step_id - 1),
        (Step([7, 7], []), step_id + 1),
        (Step([], [7, 7]), step_id + 1),
    ):
        with pytest.raises(redis.ResponseError, match="STEP"):
            store.send(wrong, number)
    with pytest.raises(redis.ResponseError, match="stale epoch"):
        store.send(step, step_id + 1, epoch="6")
    assert kept(books) == before


def kept(books: redis.Redis) -> list[object]:
    """All that is in a database, but for the time until when the lease lasts."""
    session = books.hgetall("bench:a:session")
    del session[b"deadline"]
    rest = sorted(set(books.keys()) - {b"bench:a:session"})
    return [session, *((key, books.dump(key)) for key in rest)]
