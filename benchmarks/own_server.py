"""A server of our own for a comparison, with a channel to it.

Rules:
- Telemetry is off unless the comparison is about it: what the environment says of it does not
  reach these servers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import grpc

from benchmarks import raw
from benchmarks.placement import server_core
from kvblock import EmbeddedServer

POOL = "bench"
TELEMETRY_OFF = {"OTEL_SDK_DISABLED": "true"}


class OwnServer(NamedTuple):
    """A running server: its address, a channel to it, and its process id."""

    address: str
    channel: grpc.aio.Channel
    process: int


@asynccontextmanager
async def own_server(
    blocks: int, telemetry: Mapping[str, str] = TELEMETRY_OFF, arguments: Sequence[str] = ()
) -> AsyncIterator[OwnServer]:
    """Run a server with one pool, POOL, of so many blocks; it keeps no journal by default."""
    unset = {name: "" for name in os.environ if name.startswith("OTEL_")}
    server = EmbeddedServer(
        [f"{POOL}:total={blocks},block_size=16,device=0"], arguments, env={**unset, **telemetry}
    )
    async with AsyncExitStack() as stack:
        with server_core():
            stack.enter_context(server)
        channel = await stack.enter_async_context(raw.open_channel(server.address))
        yield OwnServer(server.address, channel, server.process.pid)
