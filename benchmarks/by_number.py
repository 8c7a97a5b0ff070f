"""Blocks by number against sequences of one block: what acquire and release cost a step.

Rules:
- Both engines are on the same server and make steps of the same size in sessions, in turns: one
  frees B sequences and allocates one block for each of B new ones, the other releases B acquired
  blocks and acquires as many.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc

from benchmarks import raw
from benchmarks.context import Context
from benchmarks.interleave import interleave
from benchmarks.workload import NumberBytes, StepBytes, check_acquired, first_numbers

NUMBERS, SEQUENCES = "acquire and release", "allocate and free"


async def by_number(context: Context) -> None:
    """A step of acquired blocks against one of one-block sequences, by step size."""
    servers = context.servers
    engine = f"{context.engine}-numbers"
    for index, size in enumerate(context.sizes):
        by_sequence = StepBytes(size, servers.pool, context.engine)
        async with (
            raw.session(servers.ours, servers.pool, context.engine, size) as sequences,
            acquired(servers.ours, servers.pool, engine, size) as (numbers, requests),
        ):
            found = await interleave(
                {SEQUENCES: raw.Pick(0, sequences), NUMBERS: raw.Pick(1, numbers)},
                partial(_both, by_sequence, requests),
                context.plan(8),
                context.part(index, len(context.sizes)),
            )
        context.add("acquire_over_allocate_step", size, found, NUMBERS, SEQUENCES)


@asynccontextmanager
async def acquired(
    channel: grpc.aio.Channel, pool: str, engine: str, size: int
) -> AsyncIterator[tuple[raw.BytesCalls, NumberBytes]]:
    """A session that holds `size` acquired blocks, and the steps that change them for others."""
    async with raw.session(channel, pool, engine, size, check_acquired) as calls:
        await calls.run([first_numbers(size)])
        blocks = raw.stepped(calls.last_answer).acquired_block_numbers
        yield calls, NumberBytes(blocks)


def _both(first: StepBytes, second: NumberBytes, count: int) -> list[tuple[bytes, bytes]]:
    return list(zip(first.session(count), second.session(count), strict=True))
