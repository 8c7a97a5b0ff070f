"""One flood against one server, with an engine beside it.

Rules:
- The flood and the engine are processes of their own; neither waits for the other.
- The engine steps before the flood begins and after it has ended.
- Memory is the server's resident set, the most that was seen.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.torture.floods.shapes import FLOODS, Target
from tests.torture.floods.victim import Seen, echo, engine

_CONTEXT = multiprocessing.get_context("spawn")
LOOK_SECONDS = 0.05
BEFORE_SECONDS = 0.5
AFTER_SECONDS = 1.0
LAST_RESORT = 60.0
MEMORY_MB_MAX = 256


class Prey(NamedTuple):
    """A server: its process, where floods meet it, and where its engine does.

    `token` None: it is a bare server, which has no engines.
    """

    pid: int
    flooded: str
    served: str
    token: str | None


class Outcome(NamedTuple):
    """What came of a flood; memory in MB."""

    memory_before: float
    memory: float
    seen: Seen


def run(name: str, prey: Prey, seconds: float, size: float, seed: int) -> Outcome:
    """Let a flood go on for so many seconds."""
    flood_over, over = _CONTEXT.Event(), _CONTEXT.Event()
    reads, writes = _CONTEXT.Pipe(duplex=False)
    victim = _CONTEXT.Process(target=_engine, args=(prey, over, writes), daemon=True)
    flood = _CONTEXT.Process(
        target=_flood, args=(name, prey.flooded, size, seed, flood_over), daemon=True
    )
    before = memory_mb(prey.pid)
    victim.start()
    writes.close()
    assert reads.poll(LAST_RESORT), "the engine did not start"
    reads.recv()
    _watched(prey.pid, BEFORE_SECONDS)
    flood.start()
    most = _watched(prey.pid, seconds)
    flood_over.set()
    most = max(most, _watched(prey.pid, AFTER_SECONDS))
    over.set()
    assert reads.poll(LAST_RESORT), "the engine does not end"
    seen: Seen = reads.recv()
    for process in (victim, flood):
        process.join(LAST_RESORT)
        process.kill()
    return Outcome(before, most, seen)


def problems_of(outcome: Outcome) -> list[str]:
    """What did not hold."""
    found = list(outcome.seen.failures)
    if not outcome.seen.kept_lease:
        found.append("the engine lost its lease")
    if outcome.memory > MEMORY_MB_MAX:
        found.append(f"the server took {outcome.memory:.0f} MB, more than {MEMORY_MB_MAX}")
    return found


def memory_mb(pid: int) -> float:
    """How much memory a process has, in MB."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _watched(pid: int, seconds: float) -> float:
    ends, most = time.monotonic() + seconds, 0.0
    while time.monotonic() < ends:
        most = max(most, memory_mb(pid))
        time.sleep(LOOK_SECONDS)
    return most


def _until(over: Event) -> Callable[[], bool]:
    return lambda: not over.is_set()


def _engine(prey: Prey, over: Event, writes: Connection) -> None:
    writes.send(None)
    if prey.token is None:
        writes.send(echo(prey.served, _until(over)))
    else:
        writes.send(engine(prey.served, prey.token, _until(over)))


def _flood(name: str, address: str, size: float, seed: int, over: Event) -> None:
    FLOODS[name](Target(address, size, Random(f"{seed} {name}"), _until(over)))
