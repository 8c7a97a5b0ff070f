"""Ours against Redis: the same iteration, from a client's lists to its lists.

Rules:
- Both sides are asked through their Python client, synchronous and asyncio, and each is
  represented by the faster of the two. Times hold all encoding and decoding.
- The figure is against the script as one writes it; beside it is the one against the script as
  it is after a good deal of tuning.
- Redis does the same job for a step as a session of ours; how is `redis_scripts`'s to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import perf_counter_ns
from typing import Protocol

import kvblock
from benchmarks.context import Context
from benchmarks.interleave import Comparison, Subject, interleave
from benchmarks.raw import Calls
from benchmarks.redis_scripts import PLAIN
from benchmarks.redis_store import AsyncRedisStore, RedisStore, make_pool, redis_server
from benchmarks.workload import BenchError, Step, Steps

_POOL_BLOCKS = 1 << 16


class _Answer(Protocol):
    @property
    def block_numbers(self) -> list[int]: ...


class _SyncCalls:
    """A subject: the calls of a synchronous client."""

    def __init__(self, call: Callable[[Step], _Answer], verify: Callable[[_Answer], None]) -> None:
        self._call = call
        self._verify = verify

    async def run(self, requests: Sequence[Step]) -> list[int]:
        call = self._call
        took = []
        for request in requests:
            started = perf_counter_ns()
            answer = call(request)
            took.append(perf_counter_ns() - started)
        self._verify(answer)
        return took


def _check(answer: _Answer, size: int) -> None:
    blocks = answer.block_numbers
    if len(set(blocks)) != size:
        raise BenchError(f"a step of {size} sequences was given {len(blocks)} blocks")


async def against_redis(context: Context) -> None:
    """A step of ours against one of Redis's, by step size."""
    for index, size in enumerate(context.sizes):
        async with _subjects(context, size) as subjects:
            found = await interleave(
                subjects,
                Steps(size).take,
                context.plan(12, calls=25 if size < 2048 else 10),
                context.part(index, len(context.sizes)),
            )
        tuned = _faster(found, "tuned redis", "tuned redis asyncio")
        ours = _faster(found, "kvblock", "kvblock asyncio")
        context.add("redis_over_stream_step", size, found, "redis", ours)
        context.add("tuned_redis_over_stream_step", size, found, tuned, ours)


def _faster(found: Comparison, *names: str) -> str:
    return min(names, key=lambda name: found.latencies(name).p50_us)


@asynccontextmanager
async def _subjects(context: Context, size: int) -> AsyncIterator[dict[str, Subject[Step]]]:
    servers = context.servers
    where = {"pool": servers.pool, **servers.access._asdict()}
    async with AsyncExitStack() as stack:
        socket = stack.enter_context(redis_server())
        for database in (0, 1):
            make_pool(socket, _POOL_BLOCKS, database)
        store = RedisStore(socket, 0, "sync")
        stack.callback(store.close)
        # The scripts keep their tables in different ways, so they do not share a pool.
        plain = RedisStore(socket, 1, "plain", PLAIN)
        stack.callback(plain.close)
        aio_store = AsyncRedisStore(socket, 0, "asyncio")
        stack.push_async_callback(aio_store.close)
        await aio_store.load()
        client = stack.enter_context(kvblock.connect(servers.address, **where))
        session = stack.enter_context(client.session(engine=f"{context.engine}-sync"))
        aio_client = await stack.enter_async_context(
            kvblock.connect_async(servers.address, **where)
        )
        aio_session = await stack.enter_async_context(
            aio_client.session(engine=f"{context.engine}-asyncio")
        )

        def step(step: Step) -> kvblock.StepResult:
            return session.step(free=step.free, allocate=step.allocate)

        async def aio_step(step: Step) -> kvblock.StepResult:
            return await aio_session.step(free=step.free, allocate=step.allocate)

        verify = partial(_check, size=size)
        yield {
            "redis": _SyncCalls(plain.step, verify),
            "tuned redis": _SyncCalls(store.step, verify),
            "tuned redis asyncio": Calls(aio_store.step, verify),
            "kvblock": _SyncCalls(step, verify),
            "kvblock asyncio": Calls(aio_step, verify),
        }
