"""The core without a server: run as a process of its own, it prints what it measured as JSON.

Rules:
- The core is loaded when this runs as a program, and in this module only: the client package does
  not depend on the service.
- Memory is the growth of this process's resident set over a pool of 2^31-1 blocks of which some
  millions are used, per block that was ever used, at the worst of several moments.

`python -m benchmarks.core_alone speed SECONDS` and `... memory BLOCKS`
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.workload import SIZES, Steps

_TABLE = 1000
_TABLES_PER_STEP = 100
_ENGINE = "bench"


def _pool(blocks: int) -> Any:
    core = import_module("kvblock_service.core.pool")
    return core.Pool(core.Geometry("bench", blocks, 16, 0), core.Bounds(1024, 1 << 31, 0))


def _command(free: list[int], allocate: list[int], counts: list[int], **numbers: Any) -> Any:
    commands = import_module("kvblock_service.core.commands")
    policy = commands.StepPolicy.ALL_OR_NOTHING
    return commands.Step(_ENGINE, 0, "", 0, free, allocate, counts, policy, **numbers)


def _stamp() -> Any:
    """A moment; any will do, since the engine has no lease."""
    return import_module("kvblock_service.core.commands").Stamp(0, 0, "")


def speed(seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds for a step, by its size."""
    found = {}
    for size in SIZES:
        apply, stamp = _pool(1 << 16).apply, _stamp()
        steps = Steps(size)
        took: list[int] = []
        until = time.monotonic() + seconds / len(SIZES)
        while time.monotonic() < until or len(took) < 10:
            for command in [_command(*step, []) for step in steps.take(25)]:
                started = time.perf_counter_ns()
                apply(command, stamp)
                took.append(time.perf_counter_ns() - started)
        took.sort()
        found[str(size)] = {
            "p50_us": round(took[len(took) // 2] / 1000, 2),
            "p99_us": round(took[len(took) * 99 // 100] / 1000, 2),
            "calls": len(took),
        }
    return found


def memory(blocks: int) -> dict[str, float]:
    """Resident bytes per used block: in tables, freed again, and in tables once more.

    Then in another pool: acquired, released, and acquired once more.
    """
    pool = _pool((1 << 31) - 1)
    stamp = _stamp()
    tables = blocks // _TABLE
    before = _resident()
    found = {}
    for moment in ("filled", "freed", "refilled"):
        for first in range(0, tables, _TABLES_PER_STEP):
            ids = list(range(first, min(first + _TABLES_PER_STEP, tables)))
            if moment == "freed":
                pool.apply(_command(ids, [], []), stamp)
            else:
                pool.apply(_command([], ids, [_TABLE] * len(ids)), stamp)
        gc.collect()
        found[moment] = round((_resident() - before) / (tables * _TABLE), 2)
    return found | _memory_by_number(tables * _TABLE)


def _memory_by_number(blocks: int) -> dict[str, float]:
    pool = _pool((1 << 31) - 1)
    stamp = _stamp()
    before = _resident()
    found = {}
    for moment in ("acquired", "released", "acquired again"):
        for first in range(0, blocks, _TABLE * _TABLES_PER_STEP):
            numbers = range(first, min(first + _TABLE * _TABLES_PER_STEP, blocks))
            if moment == "released":
                pool.apply(_command([], [], [], release=list(numbers)), stamp)
            else:
                pool.apply(_command([], [], [], acquire=len(numbers)), stamp)
        gc.collect()
        found[moment] = round((_resident() - before) / blocks, 2)
    return found


def _resident() -> int:
    try:
        text = Path("/proc/self/statm").read_text(encoding="ascii")
    except OSError:
        sys.exit("resident memory is read from /proc, which this system does not have")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        sys.stdout.write(json.dumps(speed(float(sys.argv[2]))))
    else:
        sys.stdout.write(json.dumps(memory(int(sys.argv[2]))))
