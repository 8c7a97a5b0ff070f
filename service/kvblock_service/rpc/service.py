"""The unary methods of KVBlockService.

Rules:
- A method converts, calls, converts back.
- Each command is told to the observer, if there is one, after it was carried out.
"""

import time
from typing import NamedTuple

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import Allocate, Free, Freed, Granted, Refused, Step, Stepped
from kvblock_service.errors import SequenceNotFound
from kvblock_service.host import Host
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import convert, validate
from kvblock_service.rpc.observe import Applied, Observer


class ServiceOptions(NamedTuple):
    """How the methods behave: limits, the hint in a refusal (seconds), and who watches."""

    limits: validate.RequestLimits
    retry_after: float
    observer: Observer | None


class KVBlockService:
    """Serves the pools of a host; each method takes a request and gives its answer."""

    def __init__(self, host: Host, options: ServiceOptions) -> None:
        self.host = host
        self.limits = options.limits
        self.retry_after = options.retry_after
        self.observer = options.observer

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        """Append blocks to a sequence's table."""
        started = self.now()
        pool = self.pool(request.pool)
        wanted = request.num_blocks if request.HasField("num_blocks") else None
        command = Allocate(
            validate.engine_name(request.engine),
            request.sequence_id,
            validate.num_blocks(wanted, self.limits),
        )
        if request.HasField("max_wait"):
            max_wait = validate.max_wait(request.max_wait, self.limits)
            outcome = await pool.allocate(command, max_wait)
        else:
            outcome = pool.apply(command)
        assert isinstance(outcome, Granted | Refused)
        if self.observer:
            refused = outcome if isinstance(outcome, Refused) else None
            self.observer(
                Applied(
                    "Allocate",
                    pool.geometry.name,
                    command.engine,
                    started,
                    pool.lock_wait_ns,
                    asked_blocks=command.num_blocks,
                    granted_blocks=0 if refused else command.num_blocks,
                    refused=refused,
                )
            )
        return convert.allocation(outcome, pool.geometry, self.retry_after)

    async def free(self, request: pb.FreeRequest) -> pb.FreeResponse:
        """Return a sequence's blocks."""
        self._free(request, "Free")
        return pb.FreeResponse()

    async def free_returning_count(
        self, request: pb.FreeReturningCountRequest
    ) -> pb.FreeReturningCountResponse:
        """Return a sequence's blocks and say how many they were."""
        freed = self._free(request, "FreeReturningCount")
        return pb.FreeReturningCountResponse(freed_blocks=freed)

    async def get_block_table(self, request: pb.GetBlockTableRequest) -> pb.GetBlockTableResponse:
        """A sequence's blocks."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        table = pool.table(engine, request.sequence_id)
        if table is None:
            raise SequenceNotFound(pool.geometry.name, engine, request.sequence_id)
        return pb.GetBlockTableResponse(
            block_numbers=table,
            block_size=pool.geometry.block_size,
            device_id=pool.geometry.device_id,
        )

    async def can_allocate(self, request: pb.CanAllocateRequest) -> pb.CanAllocateResponse:
        """Whether so many blocks are free."""
        validate.engine_name(request.engine)
        free = self.pool(request.pool).free_blocks()
        wanted = request.num_blocks if request.HasField("num_blocks") else 1
        return pb.CanAllocateResponse(can_allocate=free >= wanted, free_blocks=free)

    async def stats(self, request: pb.StatsRequest) -> pb.StatsResponse:
        """State and counters."""
        only_engine = validate.engine_name(request.engine) if request.engine else ""
        pools = [self.pool(request.pool)] if request.pool else self.host.pools.values()
        return pb.StatsResponse(
            pools=[convert.pool_stats(self.host, pool, only_engine) for pool in pools],
            server_epoch=self.host.server_epoch,
        )

    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """One engine iteration."""
        started = self.now()
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        command = convert.step_command(engine, request.step, self.limits)
        response = pb.StepResponse()
        self.run_step(pool, command, response.result, started, 0)
        return response

    def run_step(
        self, pool: PoolHost, command: Step, into: pb.StepResult, started: int, step_id: int
    ) -> None:
        """Carry out a step and write what came of it."""
        outcome = pool.apply(command)
        assert isinstance(outcome, Stepped)
        convert.fill_step_result(into, outcome, self.retry_after)
        if self.observer:
            self.observer(
                Applied(
                    "Step",
                    pool.geometry.name,
                    command.engine,
                    started,
                    pool.lock_wait_ns,
                    asked_blocks=sum(command.num_blocks) or len(command.allocate_ids),
                    granted_blocks=len(outcome.blocks),
                    freed_blocks=sum(outcome.freed_counts),
                    refused=outcome.refused,
                    step_id=step_id,
                )
            )

    def pool(self, name: str) -> PoolHost:
        """The pool that a request names."""
        return self.host.pool(validate.pool_name(name))

    def now(self) -> int:
        """The wall clock in nanoseconds where somebody watches, else 0."""
        return time.time_ns() if self.observer else 0

    def _free(self, request: pb.FreeRequest | pb.FreeReturningCountRequest, operation: str) -> int:
        started = self.now()
        pool = self.pool(request.pool)
        command = Free(validate.engine_name(request.engine), request.sequence_id)
        outcome = pool.apply(command)
        assert isinstance(outcome, Freed)
        if self.observer:
            self.observer(
                Applied(
                    operation,
                    pool.geometry.name,
                    command.engine,
                    started,
                    pool.lock_wait_ns,
                    freed_blocks=outcome.num_blocks,
                )
            )
        return outcome.num_blocks
