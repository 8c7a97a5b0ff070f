"""A large pool against a small one: what a step costs where there is more to keep.

Rules:
- Both pools were handed out whole, in tables of TABLE blocks, and every other table was freed
  again, so that the large one has millions of blocks on its free list and in tables.
- The figure is the worst of the step sizes that are compared.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import kvblock
from benchmarks import raw
from benchmarks.context import Context
from benchmarks.interleave import Tick
from benchmarks.own_server import POOL, own_server
from benchmarks.workload import BenchError

SMALL = 1 << 14
SIZES = (32, 256)
TABLE = 1000

_TABLES_PER_STEP = 250


async def large_pool(context: Context) -> None:
    """Steps in a pool of 2^24 blocks against steps in one of 2^14."""
    blocks = {"small": SMALL, "large": context.effort.large_pool}
    details: dict[str, object] = {"blocks": blocks}
    ratios = []
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(own_server(count))
            for name, count in blocks.items()
        }
        for name, server in servers.items():
            _use_whole(server.address, blocks[name], context.part(0, 1 + len(SIZES)))
        channels = {name: server.channel for name, server in servers.items()}
        for index, size in enumerate(SIZES):
            tick = context.part(1 + index, 1 + len(SIZES))
            found = await raw.compare(channels, POOL, size, context.plan(8), tick)
            ratios.append(found.ratio("large", "small"))
            details[str(size)] = {"ratio": round(ratios[-1], 3)} | found.details()
    context.results.figures["large_pool_over_small"] = round(max(ratios), 3)
    context.results.details["large_pool_over_small"] = details


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
