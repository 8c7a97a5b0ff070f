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
from functools import partial

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""The cores that this process may use when it starts; none where the system does not say."""


def description() -> str:
    """What runs where, for the report."""
    if len(CORES) < 2:
        return "chosen by the system"
    return f"client on core {CORES[0]}, servers on core {CORES[1]}"


@contextmanager
def _placed(index: int) -> Iterator[None]:
    if len(CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[index]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


client_core = partial(_placed, 0)
"""Runs this thread, and the threads that it starts, where clients run."""
server_core = partial(_placed, 1)
"""Runs this thread, and the processes that it starts, where servers run."""
