"""Servers of our own for one comparison, each with a channel to it.

Rules:
- Telemetry is off unless the comparison is about it: what the environment says of it does not
  reach these servers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from kvblock import EmbeddedServer
from kvblock.bench import raw

POOL = "bench"
TELEMETRY_OFF = {"OTEL_SDK_DISABLED": "true"}


def own_server(blocks: int, telemetry: Mapping[str, str] = TELEMETRY_OFF) -> EmbeddedServer:
    """A server, not yet started, with one pool of so many blocks."""
    unset = {name: "" for name in os.environ if name.startswith("OTEL_")}
    return EmbeddedServer(
        [f"{POOL}:total={blocks},block_size=16,device=0"], env={**unset, **telemetry}
    )


@asynccontextmanager
async def channels(
    servers: Mapping[str, EmbeddedServer],
) -> AsyncIterator[dict[str, grpc.aio.Channel]]:
    """Start servers, and open a channel to each."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                raw.open_channel(stack.enter_context(server).address)
            )
            for name, server in servers.items()
        }
