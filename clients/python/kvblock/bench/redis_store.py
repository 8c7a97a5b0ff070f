"""The same pool in Redis: a step as one Lua script, and the server that runs it.

Rules:
- Redis keeps the free blocks in one list, a list per sequence, each block's owner in a hash, and
  counters. A script frees, checks and takes in one atomic run, and gives the very blocks that a
  step of ours gives.
- TUNED is the fastest of those that were tried: sequence ids cross as one string of 8-byte words,
  which are the keys, and everything but the sequences' own lists is done in as few commands as
  Lua's stack permits. Tables in one hash, block numbers as words, or one text for all of them
  gained nothing.
- PLAIN is what one writes first: ids as numbers, one command for each thing that changes.
- Redis listens on a Unix socket in a private directory and writes nothing to disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
import redis.asyncio

from kvblock.bench.child import child, private_directory
from kvblock.bench.workload import Step

TUNED = """
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
for i = 1, wanted, 2000 do
  local owned, m = {}, 0
  for j = i, least(i + 1999, wanted) do
    owned[m + 1], owned[m + 2] = taken[j], 'bench'
    m = m + 2
  end
  call('HSET', 'owners', unpack(owned))
end
call('INCRBY', 'held', wanted - n)
call('INCRBY', 'allocated', wanted)
call('INCRBY', 'freed', n)
for i = 1, wanted do
  local last = 8 * (num_free + i)
  call('RPUSH', sub(ids, last - 7, last), taken[i])
end
return {taken, counts, free - wanted}
"""

PLAIN = """
local num_free, wanted = tonumber(ARGV[1]), tonumber(ARGV[2])
local counts, taken = {}, {}
for i = 1, num_free do
  local key = 'table:' .. ARGV[2 + i]
  local blocks = redis.call('LRANGE', key, 0, -1)
  for _, block in ipairs(blocks) do
    redis.call('RPUSH', 'free', block)
    redis.call('HDEL', 'owners', block)
  end
  redis.call('DEL', key)
  redis.call('INCRBY', 'freed', #blocks)
  counts[i] = #blocks
end
local free = redis.call('LLEN', 'free')
if wanted > free then return {taken, counts, free} end
for i = 1, wanted do
  local block = redis.call('RPOP', 'free')
  redis.call('RPUSH', 'table:' .. ARGV[2 + num_free + i], block)
  redis.call('HSET', 'owners', block, 'bench')
  taken[i] = block
end
redis.call('INCRBY', 'allocated', wanted)
return {taken, counts, free - wanted}
"""


class Stepped(NamedTuple):
    """What came of a step; see the service's StepResult."""

    block_numbers: list[int]
    freed_counts: list[int]
    free_blocks: int


class RedisStore:
    """A pool in a database of a Redis server, through the synchronous client."""

    def __init__(self, socket: str, blocks: int, database: int, script: str = TUNED) -> None:
        self._client = redis.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._client.rpush("free", *reversed(range(blocks)))
        self._arguments = _words if script is TUNED else _numbers
        self._sha = str(self._client.script_load(script))

    def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        return _result(self._client.evalsha(self._sha, 0, *self._arguments(step)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AsyncRedisStore:
    """The same through the asyncio client and TUNED, for a store that exists."""

    def __init__(self, socket: str, database: int) -> None:
        # redis-py types what its asyncio commands answer as a value or an awaitable of it.
        self._client: Any = redis.asyncio.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._sha = ""

    async def load(self) -> None:
        """Make the script known; to be called before the first step."""
        self._sha = await self._client.script_load(TUNED)

    async def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        return _result(await self._client.evalsha(self._sha, 0, *_words(step)))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis server while the block lasts; gives its socket."""
    with private_directory() as directory:
        socket = str(directory / "redis.sock")
        command = ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", str(directory)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with child(command, "Ready to accept connections"):
            yield socket


def _words(step: Step) -> tuple[bytes | int, ...]:
    ids = array("Q", step.free + step.allocate).tobytes()
    return ids, len(step.free), len(step.allocate)


def _numbers(step: Step) -> tuple[bytes | int, ...]:
    return len(step.free), len(step.allocate), *step.free, *step.allocate


def _result(answer: Any) -> Stepped:
    blocks, counts, free = answer
    return Stepped(list(map(int, blocks)), counts, free)
