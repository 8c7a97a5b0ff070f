"""The same pool in Redis: a step as one Lua script, and the server that runs it.

Rules:
- Redis keeps the free blocks in one list, popped by count, and a list per sequence; the script
  frees, checks and takes in one atomic run, and gives the very blocks that a step of ours gives.
- The script is the fastest of those that were tried: sequence ids cross as one string of 8-byte
  words, which are the keys; frees go back and keys go away in as few commands as Lua's stack
  permits. Tables in one hash, block numbers as words, or one text for all of them gained nothing.
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


class Stepped(NamedTuple):
    """What came of a step; see the service's StepResult."""

    block_numbers: list[int]
    freed_counts: list[int]
    free_blocks: int


class RedisStore:
    """A pool in a database of a Redis server, through the synchronous client."""

    def __init__(self, socket: str, blocks: int, database: int) -> None:
        self._client = redis.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._client.rpush("free", *reversed(range(blocks)))
        self._sha = str(self._client.script_load(SCRIPT))

    def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        return _result(self._client.evalsha(self._sha, 0, *_arguments(step)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AsyncRedisStore:
    """The same through the asyncio client, for a store that exists."""

    def __init__(self, socket: str, database: int) -> None:
        # redis-py types what its asyncio commands answer as a value or an awaitable of it.
        self._client: Any = redis.asyncio.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._sha = ""

    async def load(self) -> None:
        """Make the script known; to be called before the first step."""
        self._sha = await self._client.script_load(SCRIPT)

    async def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        return _result(await self._client.evalsha(self._sha, 0, *_arguments(step)))

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


def _arguments(step: Step) -> tuple[bytes, int, int]:
    ids = array("Q", step.free + step.allocate).tobytes()
    return ids, len(step.free), len(step.allocate)


def _result(answer: Any) -> Stepped:
    blocks, counts, free = answer
    return Stepped(list(map(int, blocks)), counts, free)
