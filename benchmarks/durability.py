"""What the journal costs, and how long a server takes to be back.

Rules:
- Two servers that differ in this only: one writes a journal, as by default, the other has none.
- The restart is that of a server that was killed while engines held HELD blocks, from the start of
  its process to its ready line; once from records alone, once from a snapshot. The figure is the
  slower one.
- The pause is the longest time for which the server was held up by having that snapshot made, as
  its log tells; the snapshot itself is another process's work.
"""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

import kvblock
from benchmarks import raw
from benchmarks.child import private_directory
from benchmarks.context import Context
from benchmarks.own_server import POOL, own_server
from benchmarks.placement import server_core
from benchmarks.workload import BenchError

SIZE = 32
_RESTART_KEY = "restart_seconds_1m_blocks"

_HELD = 1_000_000
_TABLE = 10
_TABLES_PER_STEP = 1000
_SNAPSHOT_SECONDS = 180
_RECORDS = 40
"""Records after which the restart from a snapshot has one; filling the pool takes more."""


async def durability(context: Context) -> None:
    """Steps of a server with a journal against those of one without; then restarts."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(private_directory())
        kinds = {"journal": ("--state-dir", str(directory / "default")), "ephemeral": ()}
        channels = {}
        for name, arguments in kinds.items():
            server = await stack.enter_async_context(own_server(1 << 14, arguments=arguments))
            channels[name] = server.channel
        found = await raw.compare(channels, POOL, SIZE, context.plan(12), context.part(0, 2))
    context.add_single("journal_over_ephemeral", found, "journal", "ephemeral", step_size=SIZE)
    _restarts(context)


def _restarts(context: Context) -> None:
    seconds = {}
    with private_directory() as directory:
        for name, records in (("records", 10**9), ("snapshot", _RECORDS)):
            place = directory / name
            log = _fill(place, records)
            seconds[name] = round(_restart_seconds(place), 2)
            context.tick(0.5 + 0.25 * len(seconds))
    # The last one filled is the one with snapshots.
    context.results.figures["snapshot_pause_ms"] = max(_pauses(log))
    context.results.figures[_RESTART_KEY] = max(seconds.values())
    context.results.details[_RESTART_KEY] = {
        "held_blocks": _HELD,
        "sequences": _HELD // _TABLE,
        "seconds": seconds,
    }


def _server(place: Path, records: int) -> kvblock.EmbeddedServer:
    arguments = ["--state-dir", str(place), "--snapshot-records", str(records)]
    return kvblock.EmbeddedServer([f"{POOL}:total={_HELD}"], arguments)


def _pauses(log: str) -> list[float]:
    """For how many milliseconds each snapshot of the whole pool held its server up."""
    events = [json.loads(line) for line in log.splitlines()]
    return [
        event["held_up_ms"]
        for event in events
        if event["event"] == "snapshot" and event["position"] > _HELD // _TABLE // _TABLES_PER_STEP
    ]


def _fill(place: Path, records: int) -> str:
    """Hold every block of a pool, then kill its server; answers the server's log."""
    with _server(place, records) as server:
        with kvblock.connect(server.address, engine="filler", timeout=60) as client:
            for first in range(0, _HELD // _TABLE, _TABLES_PER_STEP):
                ids = range(first, first + _TABLES_PER_STEP)
                counts = [_TABLE] * _TABLES_PER_STEP
                if client.step(allocate=ids, num_blocks=counts).granted != len(ids):
                    raise BenchError(f"a pool of {_HELD} blocks cannot be filled")
            if records == _RECORDS:
                _wait_for_snapshot(server, client)
        server.process.kill()
        server.process.wait()
        return server.stderr


def _wait_for_snapshot(server: kvblock.EmbeddedServer, client: kvblock.Client) -> None:
    """Let the whole pool be in a snapshot; one that was begun before may be made first."""
    deadline = time.monotonic() + _SNAPSHOT_SECONDS
    while not _pauses(server.stderr):
        for _ in range(_RECORDS):
            client.step(free=[2**63])
        time.sleep(0.5)
        if time.monotonic() > deadline:
            raise BenchError(f"no snapshot was made:\n{server.stderr}")


def _restart_seconds(place: Path) -> float:
    with server_core():
        server = _server(place, 10**9)
        started = time.perf_counter()
        server.start()
        seconds = time.perf_counter() - started
    try:
        with kvblock.connect(server.address) as client:
            held = client.stats().pools[0].held_blocks
    finally:
        server.stop()
    if held != _HELD:
        raise BenchError(f"after a restart {held} of {_HELD} blocks are held")
    return seconds
