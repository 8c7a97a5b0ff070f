"""`kvblock.BlockPool` against vLLM's own block pool in process, and what an acquire takes.

Rules:
- A wave is RISE iterations in each of which B sequences take a block, one call for each, and RISE
  in each of which B of them give theirs back: what an engine holds rises and falls, so that the
  stash has to be filled and emptied. A wave's time is all that the scheduler's thread spends in the
  pool, `flush` at the end of each iteration included; between two iterations the engine computes,
  as it would on a GPU, for PAUSE seconds that are not counted.
- vLLM's pool runs the same waves in turns, in a process of a Python that has vLLM: the variable
  PYTHON_VARIABLE names it. It needs no flush. Its time has no message in it.
- Steps that the block pool makes are counted, all of them, also those in the background.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import Any

import kvblock
from benchmarks.context import Context
from benchmarks.interleave import Subject, interleave
from benchmarks.workload import SIZES, BenchError

PYTHON_VARIABLE = "KVBLOCK_BENCH_VLLM"
"""The environment variable with the path of a Python that has vLLM."""
RISE = 16
PAUSE = 0.002
BLOCKS = 1 << 16
_PROGRAM = Path(__file__).with_name("vllm_blocks.py")


def lacking_vllm() -> str:
    """Why there is no vLLM to compare with; "" when there is."""
    if PYTHON_VARIABLE not in os.environ:
        return f"no vLLM; set {PYTHON_VARIABLE} to the path of a Python that has it"
    return ""


class Waves:
    """A subject: waves through a block pool of ours. A request is a wave of so many sequences."""

    def __init__(self, pool: kvblock.BlockPool) -> None:
        self._pool = pool
        self.iterations = 0

    async def run(self, requests: Sequence[int]) -> list[int]:
        """Make the waves."""
        return [self._wave(size) for size in requests]

    def _wave(self, size: int) -> int:
        take, give, flush = self._pool.acquire, self._pool.release, self._pool.flush
        held: list[list[int]] = []
        took = 0
        for _ in range(RISE):
            started = perf_counter_ns()
            for _ in range(size):
                blocks = take(1)
                if isinstance(blocks, kvblock.Refused):
                    raise BenchError(f"a block was refused: {blocks}")
                held.append(blocks)
            flush()
            took += perf_counter_ns() - started
            sleep(PAUSE)
        for _ in range(RISE):
            started = perf_counter_ns()
            for _ in range(size):
                give(held.pop())
            flush()
            took += perf_counter_ns() - started
            sleep(PAUSE)
        self.iterations += 2 * RISE
        return took


class VllmWaves:
    """A subject: the same waves through vLLM's pool."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, requests: Sequence[int]) -> list[int]:
        """Have the waves made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{requests[0]} {len(requests)}\n".encode())
        line = await self._process.stdout.readline()
        if not line:
            raise BenchError("vLLM's block pool has ended")
        took: list[int] = json.loads(line)
        return took


async def stash_acquire(context: Context) -> None:
    """The time of an acquire that the stash answers."""
    took: list[int] = []
    plan = context.plan(4)
    size = SIZES[1]
    with our_pool(context) as (pool, _):
        until = perf_counter_ns() + int(plan.seconds * 1e9)
        while perf_counter_ns() < until or len(took) < plan.rounds * size:
            held = []
            for _ in range(size):
                started = perf_counter_ns()
                blocks = pool.acquire(1)
                took.append(perf_counter_ns() - started)
                if isinstance(blocks, kvblock.Refused):
                    raise BenchError(f"a block was refused: {blocks}")
                held += blocks
            pool.release(held)
            pool.flush()
    took.sort()
    p50, p99 = took[len(took) // 2] / 1000, took[len(took) * 99 // 100] / 1000
    context.results.figures["stash_acquire_us"] = round(p50, 3)
    context.results.details["stash_acquire_us"] = {"p99_us": round(p99, 3), "calls": len(took)}


async def against_vllm(context: Context) -> None:
    """Waves through a block pool of ours against the same through vLLM's."""
    most = 0.0
    async with vllm_pool() as theirs:
        for index, size in enumerate(context.fitting("a wave of", SIZES, 2 * RISE)):
            with our_pool(context) as (pool, steps):
                ours = Waves(pool)
                subjects: dict[str, Subject[int]] = {"kvblock": ours, "vllm": theirs}
                found = await interleave(
                    subjects,
                    [size].__mul__,
                    context.plan(8, calls=1),
                    context.part(index, len(SIZES)),
                )
                most = max(most, steps() / ours.iterations)
            context.add("block_pool_over_vllm", size, found, "kvblock", "vllm")
    context.results.figures["block_pool_steps_per_iteration"] = round(most, 3)


@contextmanager
def our_pool(context: Context) -> Iterator[tuple[kvblock.BlockPool, Callable[[], int]]]:
    """A block pool over a session of its own, and how many steps it has made so far."""
    servers = context.servers
    where = {"pool": servers.pool, **servers.access._asdict()}
    with (
        kvblock.connect(servers.address, **where) as client,
        client.session(engine=f"{context.engine}-stash") as session,
    ):
        made = 0
        step = session.step

        def counted(*args: Any, **kwargs: Any) -> kvblock.StepResult:
            nonlocal made
            made += 1
            return step(*args, **kwargs)

        session.step = counted  # type: ignore[method-assign]
        with kvblock.BlockPool(session) as pool:
            yield pool, lambda: made


@asynccontextmanager
async def vllm_pool() -> AsyncIterator[VllmWaves]:
    """VLLM's pool, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        os.environ[PYTHON_VARIABLE],
        str(_PROGRAM),
        *map(str, (BLOCKS, RISE, PAUSE)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).strip() != b"ready":
            if not line:
                assert process.stderr is not None
                errors = (await process.stderr.read()).decode(errors="replace").strip()
                raise BenchError(f"vLLM's block pool did not start:\n{errors}")
        yield VllmWaves(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
