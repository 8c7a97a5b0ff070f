"""Compares this checkout's server with another's: `python -m benchmarks.two_checkouts DIR`.

Rules:
- One client sends the same bytes to both servers in turns; a figure is the median of the ratios
  this / other within rounds. 1.00 is equal, above it this checkout is slower.
- Both servers are started several times, this one and the other one first in turns: a start alone
  moves a figure by a percent or two. The figure shown is the geometric mean of the starts, with the
  lowest and the highest beside it.
- DIR has its own `.venv`, as `make setup` leaves it there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import geometric_mean
from tempfile import TemporaryDirectory

import grpc

from benchmarks import raw
from benchmarks.interleave import Plan, interleave
from benchmarks.placement import client_core, server_core
from benchmarks.workload import SIZES, BenchError, Pairs

THIS, OTHER = "this", "other"
_HERE = Path(__file__).parents[1]
_POOL = "bench"
_UNARY_SIZE = 32


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.two_checkouts",
        description="How much longer calls take with this checkout's server than with another's.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the other checkout")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure and start")
    parser.add_argument("--starts", type=int, default=6, help="of both servers")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.starts < 1:
        parser.error(f"--starts is {given.starts}; it must be at least 1")
    other = given.directory.absolute()
    if not (other / ".venv/bin/kvblock").is_file():
        parser.error(f"{other} has no .venv/bin/kvblock; run `make setup` there")
    found: dict[str, list[float]] = {}
    checkouts = {THIS: _HERE, OTHER: other}
    with client_core():
        for _ in range(given.starts):
            checkouts = dict(reversed(checkouts.items()))
            for journal in (False, True):
                for name, ratio in asyncio.run(_measure(checkouts, journal, given.seconds)).items():
                    found.setdefault(name, []).append(ratio)
    figures = {name: round(geometric_mean(ratios), 3) for name, ratios in found.items()}
    if given.json:
        print(json.dumps(figures))  # noqa: T201 - the program's answer
        return
    for name, figure in figures.items():
        print(f"{name:40} {figure:6.3f}   {min(found[name]):.3f} to {max(found[name]):.3f}")  # noqa: T201


async def _measure(
    checkouts: Mapping[str, Path], journal: bool, seconds: float
) -> dict[str, float]:
    """The ratios of both servers, with a journal or without."""
    suffix = "journal" if journal else "no journal"
    plan = Plan(seconds)
    figures = {}
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(_server(checkout, journal))
            for name, checkout in checkouts.items()
        }
        for size in SIZES:
            found = await raw.compare(channels, _POOL, size, plan)
            figures[f"session step, B={size}, {suffix}"] = found.ratio(THIS, OTHER)
        pairs = {name: raw.allocate_and_free(channel) for name, channel in channels.items()}
        found = await interleave(pairs, Pairs(_POOL, "pairs").take, plan)
        figures[f"Allocate and Free, {suffix}"] = found.ratio(THIS, OTHER)
        found = await raw.compare(channels, _POOL, _UNARY_SIZE, plan, unary=True)
        figures[f"unary Step, B={_UNARY_SIZE}, {suffix}"] = found.ratio(THIS, OTHER)
    return figures


@asynccontextmanager
async def _server(checkout: Path, journal: bool) -> AsyncIterator[grpc.aio.Channel]:
    """A server of a checkout, and a channel to it."""
    with TemporaryDirectory(prefix="kvblock-") as place:
        address = f"unix:{place}/socket"
        # Nothing of ours, and no telemetry.
        named = ("KVBLOCK_", "OTEL_", "PYTHONPATH")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(named)}
        state = ["--state-dir", f"{place}/state"] if journal else ["--ephemeral"]
        with server_core():
            process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
                [
                    *(str(checkout / ".venv/bin/kvblock"), "serve", "--listen", address, *state),
                    *("--pool", f"{_POOL}:total=16384,block_size=16,device=0"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=kept | {"OTEL_SDK_DISABLED": "true"},
                cwd=place,
            )
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise BenchError(f"the server of {checkout} did not start")
            async with raw.open_channel(address) as channel:
                yield channel
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
