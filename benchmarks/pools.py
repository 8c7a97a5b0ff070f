"""A large pool against a small one: what a step costs where there is more to keep.

Rules:
- Both pools were handed out whole, in tables of TABLE blocks, and every other table was freed
  again, so that the large one has millions of blocks on its free list and in tables. For blocks by
  number half of what is free is acquired as well.
- A figure is the worst of the step sizes that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

import grpc

import kvblock
from benchmarks import raw
from benchmarks.by_number import acquired
from benchmarks.context import Context
from benchmarks.interleave import Comparison, Plan, Tick, interleave
from benchmarks.own_server import POOL, own_server
from benchmarks.workload import BenchError

SMALL = 1 << 14
SIZES = (32, 256)
TABLE = 1000

_TABLES_PER_STEP = 250
_ACQUIRED_PER_STEP = 250_000
_PARTS = 4 + 2 * len(SIZES)


async def large_pool(context: Context) -> None:
    """Steps in a pool of 2^24 blocks against steps in one of 2^14."""
    blocks = {"small": SMALL, "large": context.effort.large_pool}
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(own_server(count))
            for name, count in blocks.items()
        }
        parts = iter(range(_PARTS))
        for name, server in servers.items():
            _use_whole(server.address, blocks[name], context.part(next(parts), _PARTS))
        channels = {name: server.channel for name, server in servers.items()}
        by_size = {}
        for size in SIZES:
            tick = context.part(next(parts), _PARTS)
            by_size[size] = await raw.compare(channels, POOL, size, context.plan(8), tick)
        _add(context, "large_pool_over_small", blocks, by_size)
        for server in servers.values():
            _acquire_half(server.address, context.part(next(parts), _PARTS))
        for size in SIZES:
            tick = context.part(next(parts), _PARTS)
            by_size[size] = await _compare_acquired(channels, size, context.plan(8), tick)
        _add(context, "large_pool_acquired_over_small", blocks, by_size)


def _add(
    context: Context, key: str, blocks: dict[str, int], by_size: dict[int, Comparison]
) -> None:
    ratios = {size: round(found.ratio("large", "small"), 3) for size, found in by_size.items()}
    context.results.figures[key] = max(ratios.values())
    context.results.details[key] = {
        "blocks": blocks,
        **{str(size): {"ratio": ratios[size]} | by_size[size].details() for size in by_size},
    }


async def _compare_acquired(
    channels: Mapping[str, grpc.aio.Channel], size: int, plan: Plan, tick: Tick
) -> Comparison:
    """Compare pools by steps that release `size` acquired blocks and acquire as many."""
    async with AsyncExitStack() as stack:
        held = [
            await stack.enter_async_context(acquired(channel, POOL, "bench", size))
            for channel in channels.values()
        ]

        def requests(count: int) -> list[tuple[bytes, ...]]:
            return list(zip(*(steps.session(count) for _, steps in held), strict=True))

        subjects = {
            name: raw.Pick(index, calls)
            for index, (name, (calls, _)) in enumerate(zip(channels, held, strict=True))
        }
        return await interleave(subjects, requests, plan, tick)


def _acquire_half(address: str, tick: Tick) -> None:
    """Acquire half of what is free."""
    with kvblock.connect(address, pool=POOL, engine="filler", timeout=60) as client:
        left = half = client.can_allocate(1).free_blocks // 2
        while left:
            count = min(left, _ACQUIRED_PER_STEP)
            client.step(acquire=count)
            left -= count
            tick(1 - left / half)


def _use_whole(address: str, blocks: int, tick: Tick) -> None:
    """Hand out every block of a pool once, and take back every other table."""
    whole = blocks // TABLE
    counts = [TABLE] * whole + [blocks - whole * TABLE]
    with kvblock.connect(address, pool=POOL, engine="filler", timeout=60) as client:
        for first in range(0, len(counts), _TABLES_PER_STEP):
            part = counts[first : first + _TABLES_PER_STEP]
            ids = range(first, first + len(part))
            result = client.step(allocate=ids, num_blocks=part)
            if result.granted != len(part):
                raise BenchError(f"the pool of {blocks} blocks cannot be filled")
            tick((first + len(part)) / len(counts))
        for first in range(0, len(counts), 2 * _TABLES_PER_STEP):
            client.step(free=range(first, min(first + 2 * _TABLES_PER_STEP, len(counts)), 2))
