"""What the sections of the benchmark share: the servers, the time they have, and their results.

Rules:
- A section adds its figures under the keys of the JSON, everything else it measured under
  `details`, and what it could not measure, with the reason, under `missing`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import grpc

from benchmarks.interleave import Comparison, Plan, Tick
from benchmarks.workload import SIZES
from kvblock.credentials import Tls

Figure = float | dict[str, float]
"""A figure, or one for each step size."""


class Effort(NamedTuple):
    """How much is measured.

    `share`: of the time that a full run takes. `rounds` is the least that is counted, `warm_up` is
    not. `large_pool` and `memory` are blocks: of the pool that is compared with a small one, and
    used for measuring memory.
    """

    name: str
    share: float
    rounds: int
    warm_up: int
    large_pool: int
    memory: int


FULL = Effort("full", 1, 20, 2, large_pool=1 << 24, memory=4_000_000)
QUICK = Effort("quick", 0.12, 5, 1, large_pool=1 << 20, memory=2_000_000)


class Access(NamedTuple):
    """What it takes to be let in by our server."""

    token: str | None = None
    tls: Tls | bool = False


NO_ACCESS = Access()


class Servers(NamedTuple):
    """What is compared: our server and the echoes, a channel to each, and the pool to use.

    `process` is our server's process id, None for a server that somebody else has started.
    """

    address: str
    access: Access
    ours: grpc.aio.Channel
    echo: grpc.aio.Channel
    tuned_echo: grpc.aio.Channel
    pool: str
    process: int | None


class Results:
    """What was measured so far."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}
        self.details: dict[str, object] = {}
        self.missing: dict[str, str] = {}


class Context:
    """What a section runs with. `sizes` are the step sizes that our server's pool has room for.

    `free_blocks`: of that pool, when the benchmark begins.
    """

    def __init__(
        self, servers: Servers, results: Results, free_blocks: int, effort: Effort
    ) -> None:
        self.servers = servers
        self.results = results
        self.free_blocks = free_blocks
        # Both of our clients in the comparison with Redis hold a step's blocks at the same time.
        self.sizes = self.fitting("a step of", SIZES, 2)
        self.effort = effort
        self.tick: Tick = lambda _: None

    @property
    def engine(self) -> str:
        """A name for an engine that no other user of the server has."""
        return f"bench-{os.getpid()}"

    def plan(self, seconds: float, calls: int = 25) -> Plan:
        """A plan of what are so many seconds in a full run."""
        effort = self.effort
        return Plan(seconds * effort.share, calls, effort.rounds, effort.warm_up)

    def fitting(self, what: str, numbers: Sequence[int], blocks_each: int) -> tuple[int, ...]:
        """Those of some numbers of things that the pool has room for; the others are missing."""
        fit = tuple(number for number in numbers if number * blocks_each <= self.free_blocks)
        for number in numbers:
            if number not in fit:
                why = f"the pool has only {self.free_blocks} free blocks"
                self.results.missing[f"{what} {number}"] = why
        return fit

    def part(self, index: int, count: int) -> Tick:
        """The progress of one of `count` equally long parts of the section."""
        tick = self.tick
        return lambda done: tick((index + done) / count)

    def add_single(
        self, key: str, found: Comparison, above: str, below: str, **facts: object
    ) -> None:
        """Add a ratio that there is once, and what it was taken from."""
        self.results.figures[key] = round(found.ratio(above, below), 3)
        self.results.details[key] = facts | found.details()

    def add(self, key: str, size: int, found: Comparison, above: str, below: str) -> None:
        """Add a ratio that there is for each step size, and what it was taken from."""
        by_size = self.results.figures.setdefault(key, {})
        details = self.results.details.setdefault(key, {})
        assert isinstance(by_size, dict)
        assert isinstance(details, dict)
        by_size[str(size)] = round(found.ratio(above, below), 3)
        details[str(size)] = found.details() | {"ratio_of": [above, below]}
