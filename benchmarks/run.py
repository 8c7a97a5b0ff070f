"""Runs the sections of the benchmark, one after the other, and collects what they measure.

Rules:
- What a section needs and this machine lacks is found before it starts; the section is then left
  out and said to be missing, and the others run.
- Against somebody else's server only the sections run that need nothing but that server, with
  engine names of this process's own, and everything they take is given back.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from typing import NamedTuple

import grpc

import kvblock
from benchmarks import raw
from benchmarks.against_echo import stream, unary
from benchmarks.block_pool import against_vllm, lacking_vllm, stash_acquire
from benchmarks.by_number import by_number
from benchmarks.child import echo_server, private_directory
from benchmarks.context import NO_ACCESS, Access, Context, Effort, Results, Servers
from benchmarks.core import core
from benchmarks.durability import durability
from benchmarks.engines import engines
from benchmarks.leases import leases
from benchmarks.own_server import POOL, own_server
from benchmarks.pools import large_pool
from benchmarks.tracing import tracing
from benchmarks.unary_loop import unary_loop
from benchmarks.workload import BenchError
from kvblock.extras import install_hint

_POOL_BLOCKS = 1 << 16


class Section(NamedTuple):
    """A part of the benchmark.

    `keys`: the figures it gives. `weight`: its share of the time, in seconds of a full run.
    `any_server`: whether it can be run against any server. `lacking`: says why it cannot run on
    this machine, "" when it can.
    """

    title: str
    keys: tuple[str, ...]
    weight: float
    run: Callable[[Context], Awaitable[None]]
    any_server: bool = True
    lacking: Callable[[], str] = lambda: ""


Begin = Callable[[str, float], Callable[[float], None]]
"""Gets a section's title and weight when it begins; answers how to move its progress on."""


def _lacking_redis() -> str:
    if shutil.which("redis-server") is None:
        return "no redis-server here; install it (Debian: apt-get install redis-server)"
    if find_spec("redis") is None or find_spec("hiredis") is None:
        return f"redis-py and hiredis are not installed; {install_hint('bench')}"
    return ""


async def _redis(context: Context) -> None:
    from benchmarks.against_redis import against_redis

    await against_redis(context)


_STREAM = ("stream_step_over_echo", "stream_step_over_tuned_echo")
_UNARY = ("unary_step_over_echo", "unary_step_over_tuned_echo", "unary_allocate_over_echo")
_REDIS = ("redis_over_stream_step", "tuned_redis_over_stream_step")
_JOURNAL = ("journal_over_ephemeral", "restart_seconds_1m_blocks", "snapshot_pause_ms")
_VLLM = ("block_pool_over_vllm", "block_pool_steps_per_iteration")
_POOLS = ("large_pool_over_small", "large_pool_acquired_over_small")
_TRACING = ("tracing_1pct_over_off", "tracing_all_over_off")

SECTIONS = {
    "stream": Section("session / echo", _STREAM, 44, stream),
    "unary": Section("unary / echo", _UNARY, 44, unary),
    "loop": Section("unary / session", ("unary_step_over_stream_step",), 36, unary_loop),
    "numbers": Section("blocks by number", ("acquire_over_allocate_step",), 36, by_number),
    "stash": Section("stash", ("stash_acquire_us",), 4, stash_acquire),
    "vllm": Section("block pool / vLLM", _VLLM, 40, against_vllm, lacking=lacking_vllm),
    "redis": Section("Redis", _REDIS, 52, _redis, lacking=_lacking_redis),
    "leases": Section("leases", ("leases_over_none",), 10, leases),
    "durability": Section("journal", _JOURNAL, 40, durability, any_server=False),
    "engines": Section("engines at once", (), 20, engines),
    "pools": Section("large pool", _POOLS, 50, large_pool, any_server=False),
    "tracing": Section("tracing", _TRACING, 25, tracing, any_server=False),
    "core": Section("core alone", ("bytes_per_block",), 20, core, any_server=False),
}


async def run(
    address: str | None,
    pool: str,
    only: Iterable[str],
    begin: Begin,
    effort: Effort,
    access: Access = NO_ACCESS,
) -> Results:
    """Run the sections named in `only`, all of them when it is empty.

    `address`: the server to measure, None for one of our own; `access`: what it takes to be let
    in; `pool`: its pool, empty for its default one.

    Raises:
        BenchError: a measurement failed.
        KVBlockError: the server refuses, or is not there.

    """
    results = Results()
    wanted = set(only) or set(SECTIONS)
    chosen = {name: section for name, section in SECTIONS.items() if name in wanted}
    chosen = {n: s for n, s in chosen.items() if _can_run(s, address is not None, results)}
    try:
        async with _servers(address, access, pool) as servers:
            context = Context(servers, results, await _free_blocks(servers), effort)
            for section in chosen.values():
                context.tick = begin(section.title, section.weight)
                await section.run(context)
                context.tick(1)
    except grpc.RpcError as error:
        raise BenchError(f"a call failed: {error.code().name}: {error.details()}") from error
    return results


def _can_run(section: Section, foreign: bool, results: Results) -> bool:
    why = section.lacking()
    if foreign and not section.any_server:
        why = "needs servers of its own; run it without --address"
    if why:
        results.missing |= dict.fromkeys(section.keys, why)
    return not why


@asynccontextmanager
async def _servers(address: str | None, access: Access, pool: str) -> AsyncIterator[Servers]:
    """The server to measure, and echoes that are reached in the same way."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(private_directory())
        process = None
        if address is None:
            server = await stack.enter_async_context(own_server(_POOL_BLOCKS))
            address, pool, process, ours = server.address, POOL, server.process, server.channel
        else:
            ours = await stack.enter_async_context(raw.open_channel(address, access))
        unix = address.startswith("unix:")

        async def echo(name: str) -> grpc.aio.Channel:
            where = f"unix:{directory / name}" if unix else "127.0.0.1:0"
            at = stack.enter_context(echo_server(where, tuned=name == "tuned"))
            return await stack.enter_async_context(raw.open_channel(at))

        echoes = (await echo("bare"), await echo("tuned"))
        yield Servers(address, access, ours, *echoes, pool, process)


async def _free_blocks(servers: Servers) -> int:
    """What the pool has free; this is also the first call to the server."""
    where = {"pool": servers.pool, **servers.access._asdict()}
    async with kvblock.connect_async(servers.address, **where) as client:
        return (await client.can_allocate(1)).free_blocks
