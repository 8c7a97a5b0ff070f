"""Ours against Redis: the same iteration as one Lua script, from a client's lists to its lists.

Rules:
- Redis keeps the free blocks in one list, popped by count, and a list per sequence; the script
  frees, checks and takes in one atomic run, as a step of ours does.
- The script is the fastest of those that were tried: sequence ids cross as one string of 8-byte
  words, which are the keys; frees go back and keys go away in as few commands as Lua's stack
  permits; a table in a hash, block numbers as words and text in place of arrays gained nothing.
- Both sides are asked through their Python client, synchronous and asyncio, and each is
  represented by the faster of the two. Times hold all encoding and decoding.
- Redis listens on a Unix socket in a private directory and writes nothing to disk.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import redis
import redis.asyncio

import kvblock
from kvblock.bench.child import child, private_directory
from kvblock.bench.interleave import Comparison, interleave
from kvblock.bench.stage import Stage
from kvblock.bench.workload import BenchError, Step, Steps

SCRIPT = """
local call, sub, least = redis.call, string.sub, math.min
local ids, num_free, wanted = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local keys, counts, back, n = {}, {}, {}, 0
for i = 1, num_free do
  local key = sub(ids, 8 * i - 7, 8 * i)
  keys[i] = key
  local blocks = call('LRANGE', key, 0, -1)
  local count = #blocks
  counts[i] = count
  if count == 1 then
    n = n + 1
    back[n] = blocks[1]
  else
    for j = 1, count do back[n + j] = blocks[j] end
    n = n + count
  end
end
for i = 1, n, 4000 do call('RPUSH', 'free', unpack(back, i, least(i + 3999, n))) end
for i = 1, num_free, 4000 do call('DEL', unpack(keys, i, least(i + 3999, num_free))) end
local free = call('LLEN', 'free')
if wanted > free then return {{}, counts, free} end
local taken = call('RPOP', 'free', wanted)
for i = 1, wanted do
  local last = 8 * (num_free + i)
  call('RPUSH', sub(ids, last - 7, last), taken[i])
end
return {taken, counts, free - wanted}
"""

_POOL_BLOCKS = 1 << 16


def _arguments(step: Step) -> tuple[bytes, int, int]:
    ids = array("Q", step.free + step.allocate).tobytes()
    return ids, len(step.free), len(step.allocate)


def _result(answer: Any) -> tuple[list[int], list[int], int]:
    blocks, counts, free = answer
    return list(map(int, blocks)), counts, free


class _Redis:
    """Steps through the synchronous client."""

    def __init__(self, client: redis.Redis, sha: str) -> None:
        self._client = client
        self._sha = sha

    async def run(self, requests: Sequence[Step]) -> list[int]:
        call, sha = self._client.evalsha, self._sha
        took = []
        blocks: list[int] = []
        for step in requests:
            started = perf_counter_ns()
            blocks, _, _ = _result(call(sha, 0, *_arguments(step)))
            took.append(perf_counter_ns() - started)
        _check(blocks, requests[-1])
        return took


class _AsyncRedis:
    """Steps through the asyncio client."""

    def __init__(self, client: redis.asyncio.Redis, sha: str) -> None:
        self._client: Any = client
        self._sha = sha

    async def run(self, requests: Sequence[Step]) -> list[int]:
        call, sha = self._client.evalsha, self._sha
        took = []
        blocks: list[int] = []
        for step in requests:
            started = perf_counter_ns()
            blocks, _, _ = _result(await call(sha, 0, *_arguments(step)))
            took.append(perf_counter_ns() - started)
        _check(blocks, requests[-1])
        return took


class _Ours:
    """Steps through our synchronous session."""

    def __init__(self, session: kvblock.Session) -> None:
        self._session = session

    async def run(self, requests: Sequence[Step]) -> list[int]:
        call = self._session.step
        took = []
        blocks: list[int] = []
        for step in requests:
            started = perf_counter_ns()
            blocks = call(free=step.free, allocate=step.allocate).block_numbers
            took.append(perf_counter_ns() - started)
        _check(blocks, requests[-1])
        return took


class _AsyncOurs:
    """Steps through our asyncio session."""

    def __init__(self, session: kvblock.AsyncSession) -> None:
        self._session = session

    async def run(self, requests: Sequence[Step]) -> list[int]:
        call = self._session.step
        took = []
        blocks: list[int] = []
        for step in requests:
            started = perf_counter_ns()
            blocks = (await call(free=step.free, allocate=step.allocate)).block_numbers
            took.append(perf_counter_ns() - started)
        _check(blocks, requests[-1])
        return took


def _check(blocks: list[int], step: Step) -> None:
    if len(set(blocks)) != len(step.allocate):
        raise BenchError(f"a step of {len(step.allocate)} sequences was given {len(blocks)} blocks")


_Subject = _Redis | _AsyncRedis | _Ours | _AsyncOurs


async def against_redis(stage: Stage) -> None:
    """A step of ours against one of Redis's, by step size."""
    key = "redis_over_stream_step"
    for index, size in enumerate(stage.sizes):
        async with _subjects(stage) as subjects:
            found = await interleave(
                subjects,
                Steps(size).take,
                stage.plan(12, calls=25 if size < 2048 else 10),
                stage.part(index, len(stage.sizes)),
            )
        theirs = _faster(found, "redis", "redis asyncio")
        ours = _faster(found, "kvblock", "kvblock asyncio")
        stage.add(key, size, found, found.ratio(theirs, ours))
        chosen = stage.results.details.setdefault(f"{key}_clients", {})
        assert isinstance(chosen, dict)
        chosen[str(size)] = [theirs, ours]


def _faster(found: Comparison, *names: str) -> str:
    return min(names, key=lambda name: found.latencies(name).p50_us)


@asynccontextmanager
async def _subjects(stage: Stage) -> AsyncIterator[dict[str, _Subject]]:
    address, pool = stage.servers.address, stage.servers.pool
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(private_directory())
        socket = str(directory / "redis.sock")
        stack.enter_context(child(_command(socket, directory), "Ready to accept connections"))
        plain = redis.Redis(unix_socket_path=socket, single_connection_client=True)
        stack.callback(plain.close)
        # A database of its own, as each of our sessions has sequences of its own.
        other = redis.asyncio.Redis(unix_socket_path=socket, db=1, single_connection_client=True)
        stack.push_async_callback(other.aclose)
        plain.rpush("free", *reversed(range(_POOL_BLOCKS)))
        plain.copy("free", "free", destination_db="1")
        sha = str(plain.script_load(SCRIPT))
        client = stack.enter_context(kvblock.connect(address, pool=pool))
        aio_client = await stack.enter_async_context(kvblock.connect_async(address, pool=pool))
        session = client.session(engine=f"{stage.engine}-sync")
        aio_session = aio_client.session(engine=f"{stage.engine}-asyncio")
        yield {
            "redis": _Redis(plain, sha),
            "redis asyncio": _AsyncRedis(other, sha),
            "kvblock": _Ours(stack.enter_context(session)),
            "kvblock asyncio": _AsyncOurs(await stack.enter_async_context(aio_session)),
        }


def _command(socket: str, directory: Path) -> list[str]:
    quiet = ["--save", "", "--appendonly", "no", "--daemonize", "no"]
    return ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", str(directory), *quiet]
