"""The work that is measured: an engine in a steady state.

Rules:
- A step frees the sequences of the step before and allocates one block each for as many new ones,
  so the pool is as full after it as before, and no sequence id comes twice.
- Requests are made, and written as bytes, before the clock starts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from kvblock.v1 import kvblock_pb2 as pb

SIZES = (1, 32, 256, 2048)
"""How many sequences a step frees, and for how many it allocates."""


class BenchError(Exception):
    """A benchmark cannot be carried out; the text says why and what would help."""


class Step(NamedTuple):
    """One iteration, as an engine has it: lists of sequence ids."""

    free: list[int]
    allocate: list[int]


class Steps:
    """An endless run of steps of one size; their sequence ids grow from `first` on."""

    def __init__(self, size: int, first: int = 1) -> None:
        self.size = size
        self._next = first
        self.held: list[int] = []
        """The sequences that hold a block when all steps so far were made."""

    def take(self, count: int) -> list[Step]:
        """The next `count` steps; the very first one frees nothing."""
        steps = []
        for _ in range(count):
            allocate = list(range(self._next, self._next + self.size))
            steps.append(Step(self.held, allocate))
            self.held = allocate
            self._next += self.size
        return steps


class StepBytes:
    """The same steps, written: as SessionSteps of one session, or as unary requests.

    `with_ids`: each unary request has a request_id of its own.
    """

    def __init__(
        self, size: int, pool: str, engine: str, epoch: int = 0, *, with_ids: bool = False
    ) -> None:
        self._steps = Steps(size)
        self._step_id = 0
        self._with_ids = with_ids
        self._epoch = epoch
        self._pool = pool
        self._engine = engine

    def session(self, count: int) -> list[bytes]:
        """The next `count` as SessionRequests; a session has to have been attached."""
        requests = []
        for step in self._steps.take(count):
            self._step_id += 1
            work = pb.SessionStep(step_id=self._step_id, step=_engine_step(step))
            requests.append(pb.SessionRequest(step=work).SerializeToString())
        return requests

    def unary(self, count: int) -> list[bytes]:
        """The next `count` as StepRequests."""
        return [
            self._unary(_engine_step(step)).SerializeToString() for step in self._steps.take(count)
        ]

    def last(self) -> bytes:
        """A StepRequest that frees what the steps so far have left."""
        return self._unary(pb.EngineStep(free_sequence_ids=self._steps.held)).SerializeToString()

    def _unary(self, step: pb.EngineStep) -> pb.StepRequest:
        request_id = os.urandom(16).hex() if self._with_ids else ""
        return pb.StepRequest(
            pool=self._pool,
            engine=self._engine,
            epoch=self._epoch,
            request_id=request_id,
            step=step,
        )


class NumberBytes:
    """Steps that release the acquired blocks of the step before and acquire as many, written.

    The blocks that come back are the ones that were released, since the last that were freed are
    the first that are granted: so they are known before the steps are made.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        """`blocks`: what the session's first step, number 1, has acquired."""
        self._step = pb.EngineStep(release_block_numbers=blocks, acquire_num_blocks=len(blocks))
        self._step_id = 1

    def session(self, count: int) -> list[bytes]:
        """The next `count` as SessionRequests."""
        requests = []
        for _ in range(count):
            self._step_id += 1
            work = pb.SessionStep(step_id=self._step_id, step=self._step)
            requests.append(pb.SessionRequest(step=work).SerializeToString())
        return requests


def first_numbers(size: int) -> bytes:
    """The step, number 1, that acquires what NumberBytes goes on with."""
    work = pb.SessionStep(step_id=1, step=pb.EngineStep(acquire_num_blocks=size))
    return pb.SessionRequest(step=work).SerializeToString()


class Pairs:
    """An endless run of AllocateRequests, each with the FreeReturningCountRequest to follow."""

    def __init__(self, pool: str, engine: str) -> None:
        self._pool = pool
        self._engine = engine
        self._made = 0

    def take(self, count: int) -> list[tuple[bytes, bytes]]:
        """The next `count`, for new sequences."""
        first = self._made + 1
        self._made += count
        pool, engine = self._pool, self._engine
        return [
            (
                pb.AllocateRequest(
                    pool=pool, engine=engine, sequence_id=number
                ).SerializeToString(),
                pb.FreeReturningCountRequest(
                    pool=pool, engine=engine, sequence_id=number
                ).SerializeToString(),
            )
            for number in range(first, first + count)
        ]


def check(result: pb.StepResult, size: int) -> None:
    """Demand that a step of the steady state was served whole.

    Raises:
        BenchError: it was not, so that its time says nothing.

    """
    if result.granted != size or len(result.block_numbers) != size:
        raise BenchError(
            f"a step of {size} sequences was not served: the pool had {result.free_blocks} blocks"
            " free; the benchmark needs a pool with more free blocks"
        )


def check_acquired(result: pb.StepResult, size: int) -> None:
    """Demand the same of a step that acquires blocks.

    Raises:
        BenchError: it was not served whole.

    """
    if len(result.acquired_block_numbers) != size:
        raise BenchError(
            f"{size} blocks were not acquired: the pool had {result.free_blocks} free; the"
            " benchmark needs a pool with more free blocks"
        )


def check_freed(data: bytes) -> None:
    """Demand that a FreeReturningCount found the one block that was allocated before it.

    Raises:
        BenchError: it did not.

    """
    freed = pb.FreeReturningCountResponse.FromString(data).freed_blocks
    if freed != 1:
        raise BenchError(f"a Free returned {freed} blocks instead of 1: the pool is too full")


def _engine_step(step: Step) -> pb.EngineStep:
    return pb.EngineStep(free_sequence_ids=step.free, allocate_sequence_ids=step.allocate)
