"""The core alone: microseconds per step, and bytes per block."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.context import Context
from benchmarks.workload import BenchError


async def core(context: Context) -> None:
    """Run both measurements, each in a fresh process."""
    speed = await _measure("speed", str(context.plan(12).seconds))
    context.results.details["core_step"] = speed
    context.tick(0.5)
    blocks = context.effort.memory
    by_moment = await _measure("memory", str(blocks))
    context.results.figures["bytes_per_block"] = max(by_moment.values())
    context.results.details["bytes_per_block"] = {"blocks": blocks} | by_moment
    context.tick(1)


async def _measure(what: str, argument: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.core_alone", what, argument),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise BenchError(errors.decode(errors="replace").strip())
    return json.loads(output)
