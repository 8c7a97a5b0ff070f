"""Which core runs what: the client of a benchmark on one, every server on another.

Rules:
- All sides of a comparison run in the same places. Where the system chose, two identical servers
  were measured up to 20 % apart, and stayed so for as long as they lived.
- A child process runs where the thread that starts it may run, so servers are started within
  `server_core`.
- On a machine with a single core, or without this call of the system, nothing is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def _cores() -> list[int]:
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


_CORES = _cores()


def description() -> str:
    """What runs where, for the report."""
    if len(_CORES) < 2:
        return "chosen by the system"
    return f"client on core {_CORES[0]}, servers on core {_CORES[1]}"


@contextmanager
def client_core() -> Iterator[None]:
    """Run this thread, and the threads that it starts, where clients run."""
    with _placed(0):
        yield


@contextmanager
def server_core() -> Iterator[None]:
    """Run this thread, and the processes that it starts, where servers run."""
    with _placed(1):
        yield


@contextmanager
def _placed(index: int) -> Iterator[None]:
    if len(_CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_CORES[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
