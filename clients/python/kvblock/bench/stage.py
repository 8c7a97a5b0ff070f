"""What the sections of the benchmark share: the servers, the time they have, and their results.

Rules:
- A section adds its figures under the keys of the JSON, everything else it measured under
  `details`, and what it could not measure, with the reason, under `missing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import grpc

from kvblock.bench.interleave import Comparison, Plan, Tick

Figure = float | dict[str, float]
"""A figure, or one for each step size."""

_QUICK = 0.12


class Servers(NamedTuple):
    """What is compared: our server and the echo, a channel to each, and the pool to use.

    `process` is our server's process id, None for a server that somebody else has started.
    """

    address: str
    ours: grpc.aio.Channel
    echo: grpc.aio.Channel
    pool: str
    process: int | None


class Results:
    """What was measured so far."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}
        self.details: dict[str, object] = {}
        self.missing: dict[str, str] = {}


class Stage:
    """Where a section runs. `sizes` are the step sizes that our server's pool has room for."""

    def __init__(
        self, servers: Servers, results: Results, sizes: Sequence[int], *, quick: bool
    ) -> None:
        self.servers = servers
        self.results = results
        self.sizes = sizes
        self.quick = quick
        self.tick: Tick = lambda _: None

    @property
    def engine(self) -> str:
        """A name for an engine that no other user of the server has."""
        return f"bench-{os.getpid()}"

    def plan(self, seconds: float, calls: int = 25) -> Plan:
        """A plan of so many seconds in a full run, of fewer in a quick one."""
        if self.quick:
            return Plan(seconds * _QUICK, calls, rounds=5, warm_up=1)
        return Plan(seconds, calls, rounds=20, warm_up=2)

    def part(self, index: int, count: int) -> Tick:
        """The progress of one of `count` equally long parts of the section."""
        tick = self.tick
        return lambda done: tick((index + done) / count)

    def add(self, key: str, size: int, comparison: Comparison, ratio: float) -> None:
        """Add a figure that there is for each step size, and what it was taken from."""
        by_size = self.results.figures.setdefault(key, {})
        details = self.results.details.setdefault(key, {})
        assert isinstance(by_size, dict)
        assert isinstance(details, dict)
        by_size[str(size)] = round(ratio, 3)
        details[str(size)] = comparison.details()


Section = Callable[[Stage], object]
