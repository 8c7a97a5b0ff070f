"""The unary methods of KVBlockService.

Rules:
- A method converts, calls, converts back.
- Each command is told to the observer, if there is one, after it was carried out.
- What changes something is answered when it is in the journal, and so is a table.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from opentelemetry.trace import SpanContext

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Detach,
    Free,
    Freed,
    Granted,
    Refused,
    Renew,
    Renewed,
    Step,
    Stepped,
)
from kvblock_service.errors import SequenceNotFound, StaleEpoch
from kvblock_service.host import Host
from kvblock_service.lease_log import LeaseEvent
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import calls, convert, validate
from kvblock_service.rpc.errors import duration_of
from kvblock_service.rpc.observe import Applied, Observer, WaitObserver


class ServiceOptions(NamedTuple):
    """How the methods behave: limits, leases, the hint in a refusal (seconds), and who watches.

    `trace_id` tells the trace of the call that runs in this task, empty when there is none.
    `waited` is told of allocations that have waited.
    """

    limits: validate.RequestLimits
    leases: validate.LeaseTerms
    retry_after: float
    observer: Observer | None = None
    trace_id: Callable[[], str] = str
    waited: WaitObserver | None = None


class KVBlockService:
    """Serves the pools of a host; each method takes a request and gives its answer."""

    def __init__(self, host: Host, options: ServiceOptions) -> None:
        self.host = host
        self.limits = options.limits
        self.retry_after = options.retry_after
        self.observer = options.observer
        self.trace_id = options.trace_id
        self._waited = options.waited
        self._leases = options.leases

    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        """Append blocks to a sequence's table."""
        started = self.now()
        pool = self.pool(request.pool)
        wanted = request.num_blocks if request.HasField("num_blocks") else None
        command = Allocate(
            validate.engine_name(request.engine),
            request.epoch,
            validate.request_id(request.request_id),
            request.sequence_id,
            validate.num_blocks(wanted, self.limits),
        )
        if request.HasField("max_wait"):
            max_wait = validate.max_wait(request.max_wait, self.limits)
            waited = partial(self._waited, pool.geometry.name) if self._waited else None
            outcome = await pool.allocate(
                command, max_wait, self.trace_id(), calls.permit_again, waited
            )
        else:
            outcome = pool.apply(command, self.trace_id())
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
        await pool.settled()
        return convert.allocation(outcome, pool.geometry, self.retry_after)

    async def free(self, request: pb.FreeRequest) -> pb.FreeResponse:
        """Return a sequence's blocks."""
        await self._free(request, "Free")
        return pb.FreeResponse()

    async def free_returning_count(
        self, request: pb.FreeReturningCountRequest
    ) -> pb.FreeReturningCountResponse:
        """Return a sequence's blocks and say how many they were."""
        freed = await self._free(request, "FreeReturningCount")
        return pb.FreeReturningCountResponse(freed_blocks=freed)

    async def get_block_table(self, request: pb.GetBlockTableRequest) -> pb.GetBlockTableResponse:
        """A sequence's blocks."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        epoch, table = pool.epoch(engine), pool.table(engine, request.sequence_id)
        await pool.settled_of(engine)
        if request.epoch and request.epoch != epoch:
            raise StaleEpoch(pool.geometry.name, engine, request.epoch, epoch).of_journal()
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
        given = request.num_blocks if request.HasField("num_blocks") else None
        wanted = validate.asked_blocks(given, self.limits)
        return pb.CanAllocateResponse(can_allocate=free >= wanted, free_blocks=free)

    async def stats(self, request: pb.StatsRequest) -> pb.StatsResponse:
        """State and counters."""
        only_engine = validate.engine_name(request.engine) if request.engine else ""
        pools = [self.pool(request.pool)] if request.pool else self.host.pools.values()
        return pb.StatsResponse(
            pools=[convert.pool_stats(pool, only_engine) for pool in pools],
            server_epoch=self.host.server_epoch,
        )

    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """One engine iteration."""
        started = self.now()
        pool = self.pool(request.pool)
        caller = convert.Caller(
            validate.engine_name(request.engine),
            request.epoch,
            validate.request_id(request.request_id),
        )
        columns = convert.step_columns(request.step)
        command = convert.step_command(caller, columns, self.limits)
        outcome = self.run_step(pool, command, started, self.trace_id())
        await pool.settled()
        return pb.StepResponse(result=convert.step_result(outcome, self.retry_after))

    async def attach_engine(self, request: pb.AttachEngineRequest) -> pb.AttachEngineResponse:
        """Begin or resume a lease."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        attached = self.attach(pool, engine, request)
        geometry = pool.geometry
        self.host.end_sessions_before(geometry.name, engine, attached.epoch)
        await pool.settled()
        return pb.AttachEngineResponse(
            lease=convert.lease(attached),
            held_blocks=attached.held_blocks,
            sequences=attached.sequences,
            server_epoch=self.host.server_epoch,
            total_blocks=geometry.total_blocks,
            block_size=geometry.block_size,
            device_id=geometry.device_id,
        )

    async def renew_lease(self, request: pb.RenewLeaseRequest) -> pb.RenewLeaseResponse:
        """Let a lease last longer."""
        pool = self.pool(request.pool)
        renewed = pool.apply(Renew(validate.engine_name(request.engine), request.epoch))
        assert isinstance(renewed, Renewed)
        return pb.RenewLeaseResponse(ttl=duration_of(renewed.ttl_ms / 1000))

    async def detach_engine(self, request: pb.DetachEngineRequest) -> pb.DetachEngineResponse:
        """End a lease in order."""
        started = self.now()
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        command = Detach(engine, request.epoch, validate.request_id(request.request_id))
        freed = self.run_detach(pool, command, "DetachEngine", started, self.trace_id())
        await pool.settled()
        return pb.DetachEngineResponse(freed_blocks=freed.num_blocks)

    def attach(
        self, pool: PoolHost, engine: str, request: pb.AttachEngineRequest | pb.SessionAttach
    ) -> Attached:
        """Begin or resume the lease that a request asks for."""
        ttl_ms = validate.ttl_ms(request.ttl if request.HasField("ttl") else None, self._leases)
        command = Attach(
            engine,
            request.epoch,
            validate.request_id(request.request_id),
            request.takeover,
            ttl_ms,
            pool.quarantine_of(engine, ttl_ms),
        )
        before = pool.epoch(engine)
        attached = pool.apply(command, self.trace_id())
        assert isinstance(attached, Attached)
        if not pool.repeated:
            self._tell_attached(pool, engine, attached, before)
        return attached

    def run_step(
        self,
        pool: PoolHost,
        command: Step,
        started: int,
        trace_id: str,
        parent: SpanContext | None = None,
    ) -> Stepped:
        """Carry out a step; `parent` is the engine's span that it belongs to, if known."""
        outcome = pool.apply(command, trace_id)
        assert isinstance(outcome, Stepped)
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
                    step_id=command.step_id,
                    parent=parent,
                )
            )
        return outcome

    def run_detach(
        self, pool: PoolHost, command: Detach, operation: str, started: int, trace_id: str
    ) -> Freed:
        """Carry out a detach, after which the lease's stream ends."""
        freed = pool.apply(command, trace_id)
        assert isinstance(freed, Freed)
        where, wait = (pool.geometry.name, command.engine), pool.lock_wait_ns
        if not pool.repeated:
            told = (LeaseEvent.DETACHED, *where, command.epoch)
            self.host.leases.tell(*told, peer=calls.peer(), blocks=freed.num_blocks)
        self.host.end_session(*where, command.epoch)
        if self.observer:
            count = freed.num_blocks
            self.observer(Applied(operation, *where, started, wait, freed_blocks=count))
        return freed

    def _tell_attached(self, pool: PoolHost, engine: str, attached: Attached, before: int) -> None:
        """Log a lease that has begun or goes on; `before` is the epoch of the one before it."""
        told: dict[str, str | int] = {
            "peer": calls.peer(),
            "ttl_ms": attached.ttl_ms,
            "blocks": attached.held_blocks,
        }
        event = LeaseEvent.RESUMED if attached.resumed else LeaseEvent.ATTACHED
        if before and not attached.resumed:
            event = LeaseEvent.TAKEN_OVER
            told["ended_epoch"] = before
        self.host.leases.tell(event, pool.geometry.name, engine, attached.epoch, **told)

    def pool(self, name: str) -> PoolHost:
        """The pool that a request names."""
        return self.host.pool(validate.pool_name(name))

    def now(self) -> int:
        """The wall clock in nanoseconds where somebody watches, else 0."""
        return time.time_ns() if self.observer else 0

    async def _free(
        self, request: pb.FreeRequest | pb.FreeReturningCountRequest, operation: str
    ) -> int:
        started = self.now()
        pool = self.pool(request.pool)
        command = Free(
            validate.engine_name(request.engine),
            request.epoch,
            validate.request_id(request.request_id),
            request.sequence_id,
        )
        outcome = pool.apply(command, self.trace_id())
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
        await pool.settled()
        return outcome.num_blocks
