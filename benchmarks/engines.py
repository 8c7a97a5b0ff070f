"""Many engines at once: steps per second, and what each step then takes.

Rules:
- Engines are sessions of one client process and one loop, and each makes its next step when the
  last was answered. The client sends bytes made beforehand and parses next to nothing, so it has
  less to do per step than the server; the shares of a core that both used are in the details.
- The echo under the same load shows what gRPC and this client can do at most.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import raw
from benchmarks.context import Context
from benchmarks.interleave import Comparison, interleave
from benchmarks.workload import StepBytes

COUNTS = (1, 8, 64)
SIZE = 32
"""Sequences that each step frees, and for which it allocates."""

_STEPS_PER_SLICE = 640


class _Slice(NamedTuple):
    steps_per_second: float
    client_share: float
    server_share: float | None


class _Fleet:
    """A subject: sessions that run side by side, each with a list of requests of its own."""

    def __init__(self, sessions: Sequence[raw.BytesCalls], process: int | None) -> None:
        self._sessions = sessions
        self._process = process
        self.slices: list[_Slice] = []

    async def run(self, requests: Sequence[Sequence[bytes]]) -> list[int]:
        served = self._server_seconds()
        busy = time.process_time()
        started = time.perf_counter()
        took = await asyncio.gather(
            *(each.run(of) for each, of in zip(self._sessions, requests, strict=True))
        )
        seconds = time.perf_counter() - started
        busy = time.process_time() - busy
        now_served = self._server_seconds()
        share = None if served is None or now_served is None else (now_served - served) / seconds
        self.slices.append(_Slice(sum(map(len, took)) / seconds, busy / seconds, share))
        return [call for calls in took for call in calls]

    def _server_seconds(self) -> float | None:
        """Processor time of the server so far; None: it is not ours, or there is no /proc."""
        try:
            text = Path(f"/proc/{self._process}/stat").read_text(errors="replace")
        except OSError:
            return None
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def engines(context: Context) -> None:
    """1, 8 and 64 engines, each with a session."""
    by_count: dict[str, object] = {}
    counts = context.fitting("engines at once:", COUNTS, SIZE)
    for index, count in enumerate(counts):
        plan = context.plan(6, calls=_STEPS_PER_SLICE // count)
        steps = [StepBytes(SIZE, context.servers.pool, context.engine) for _ in range(count)]

        def make(calls: int, steps: Sequence[StepBytes] = steps) -> list[list[bytes]]:
            return [each.session(calls) for each in steps]

        async with _fleets(context, count, make(1)) as fleets:
            found = await interleave(fleets, make, plan, context.part(index, len(counts)))
        by_count[str(count)] = {
            name: _figures(found, name, fleet.slices[plan.warm_up :])
            for name, fleet in fleets.items()
        }
    context.results.details["concurrent_engines"] = {"step_size": SIZE} | by_count


@asynccontextmanager
async def _fleets(
    context: Context, count: int, first: Sequence[Sequence[bytes]]
) -> AsyncIterator[dict[str, _Fleet]]:
    servers = context.servers
    async with AsyncExitStack() as stack:
        ours = [
            await stack.enter_async_context(
                raw.session(servers.ours, servers.pool, f"{context.engine}-{number}", SIZE)
            )
            for number in range(count)
        ]
        for session, requests in zip(ours, first, strict=True):
            await session.run(requests)
        bare = [
            await stack.enter_async_context(raw.echo_stream(servers.echo, session.last_answer))
            for session in ours
        ]
        yield {"kvblock": _Fleet(ours, servers.process), "echo": _Fleet(bare, None)}


def _figures(found: Comparison, name: str, slices: Sequence[_Slice]) -> dict[str, object]:
    shares = [each.server_share for each in slices if each.server_share is not None]
    return found.latencies(name)._asdict() | {
        "steps_per_second": round(median(each.steps_per_second for each in slices)),
        "client_share_of_a_core": round(median(each.client_share for each in slices), 2),
        "server_share_of_a_core": round(median(shares), 2) if shares else None,
    }
