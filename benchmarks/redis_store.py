"""The same pool in Redis: the server, and clients that carry a step out by one script.

Rules:
- The scripts, and what they keep, are `redis_scripts`'s to say.
- A store is one engine with one session in a pool; several share a pool as engines of ours do.
- Redis listens on a Unix socket in a private directory and writes nothing to disk.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
import redis.asyncio

from benchmarks.child import child, private_directory
from benchmarks.redis_scripts import TUNED
from benchmarks.workload import Step

_POOL = "bench"
_EPOCH = "7"
# What an attach leaves. redis-py types a mapping as invariant, for every kind of key and value.
_LEASE: Any = {"epoch": _EPOCH, "ttl": 10_000}


class Stepped(NamedTuple):
    """What came of a step; see the service's StepResult. `reason` and `needed`: of a refusal."""

    block_numbers: list[int]
    freed_counts: list[int]
    free_blocks: int
    reason: str = ""
    needed: int = 0


def make_pool(socket: str, blocks: int, database: int) -> None:
    """Put a pool of so many free blocks into an empty database."""
    with redis.Redis(unix_socket_path=socket, db=database) as client:
        client.rpush(f"{_POOL}:free", *reversed(range(blocks)))
        client.hset(f"{_POOL}:counters", "total", str(blocks))


class RedisStore:
    """An engine's session in a pool, through the synchronous client."""

    def __init__(self, socket: str, database: int, engine: str, script: str = TUNED) -> None:
        self._client = redis.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._engine = engine
        self._ids = _words if script is TUNED else _numbers
        self._client.hset(f"{_POOL}:{engine}:session", mapping=_LEASE)
        self._sha = str(self._client.script_load(script))
        self._step_id = 0

    def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        self._step_id += 1
        return self.send(step, self._step_id)

    def send(self, step: Step, step_id: int, epoch: str = _EPOCH) -> Stepped:
        """The same under a step_id that need not be the next one, and an epoch."""
        head = (_POOL, self._engine, epoch, str(step_id), str(len(step.free)))
        return _result(self._client.evalsha(self._sha, 0, *head, *self._ids(step)))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class AsyncRedisStore:
    """The same through the asyncio client and TUNED."""

    def __init__(self, socket: str, database: int, engine: str) -> None:
        # redis-py types what its asyncio commands answer as a value or an awaitable of it.
        self._client: Any = redis.asyncio.Redis(
            unix_socket_path=socket, db=database, single_connection_client=True
        )
        self._engine = engine
        self._sha = ""
        self._step_id = 0

    async def load(self) -> None:
        """Attach, and make the script known; to be called before the first step."""
        await self._client.hset(f"{_POOL}:{self._engine}:session", mapping=_LEASE)
        self._sha = await self._client.script_load(TUNED)

    async def step(self, step: Step) -> Stepped:
        """Carry out a step that asks for one block per sequence, all of them or none."""
        self._step_id += 1
        head = (_POOL, self._engine, _EPOCH, str(self._step_id), str(len(step.free)))
        return _result(await self._client.evalsha(self._sha, 0, *head, *_words(step)))

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


def _words(step: Step) -> tuple[bytes, ...]:
    return (array("Q", step.free + step.allocate).tobytes(),)


def _numbers(step: Step) -> tuple[str, ...]:
    return tuple(map(str, step.free + step.allocate))


def _result(answer: Any) -> Stepped:
    blocks, counts, *rest = json.loads(answer)
    # The plain script's encoder cannot tell an empty list from an empty object.
    return Stepped(blocks or [], counts or [], *rest)
