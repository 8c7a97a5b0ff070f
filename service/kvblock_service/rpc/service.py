"""The unary methods of KVBlockService, and what they share with its sessions.

Rules:
- What changes something is answered when it is in the journal, and so is a table.
- Each attach and detach is in the lease log once: a repetition is not logged.
"""

from functools import partial
from typing import Any

from kvblock.v1 import kvblock_pb2 as pb
from kvblock.version import VERSION
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Detach,
    Free,
    Freed,
    Renew,
    Renewed,
    Stepped,
)
from kvblock_service.core.pool import Pool
from kvblock_service.errors import SequenceNotFound, StaleEpoch
from kvblock_service.lease_log import LeaseEvent
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import calls, convert, expectation, validate
from kvblock_service.rpc.methods import PoolMethods, persisted


class KVBlockService(PoolMethods):
    """Serves the pools of a host to its engines."""

    @persisted
    async def allocate(self, request: pb.AllocateRequest) -> pb.AllocateResponse:
        """Append blocks to a sequence's table."""
        pool = self.pool(request.pool)
        key = convert.command_key(request)
        wanted = request.num_blocks if request.HasField("num_blocks") else None
        num_blocks = validate.num_blocks(wanted, self.limits)
        command = Allocate(*key, request.sequence_id, num_blocks)
        if request.HasField("max_wait"):
            max_wait = validate.max_wait(request.max_wait, self.limits)
            waited = partial(self.waited, pool.geometry.name) if self.waited else None
            trace_id, permit = self.trace_id(), calls.permit_again
            outcome: Any = await pool.allocate(command, max_wait, trace_id, permit, waited)
            self.observe(pool, command, outcome)
        else:
            outcome = self.apply(pool, command)
        return convert.allocation(outcome, pool.geometry, self.retry_after)

    @persisted
    async def free(self, request: pb.FreeRequest) -> pb.FreeResponse:
        """Return a sequence's blocks."""
        self._free(request)
        return pb.FreeResponse()

    @persisted
    async def free_returning_count(
        self, request: pb.FreeReturningCountRequest
    ) -> pb.FreeReturningCountResponse:
        """Return a sequence's blocks and say how many they were."""
        return pb.FreeReturningCountResponse(freed_blocks=self._free(request).num_blocks)

    def _free(self, request: pb.FreeRequest | pb.FreeReturningCountRequest) -> Freed:
        pool = self.pool(request.pool)
        freed: Freed = self.apply(pool, Free(*convert.command_key(request), request.sequence_id))
        return freed

    async def get_block_table(self, request: pb.GetBlockTableRequest) -> pb.GetBlockTableResponse:
        """A sequence's blocks."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        epoch, table = pool.epoch(engine), pool.table(engine, request.sequence_id)
        first_index = pool.locked(Pool.first_index, engine, request.sequence_id)
        await pool.settled_of(engine)
        if request.epoch and request.epoch != epoch:
            raise StaleEpoch(pool.geometry.name, engine, request.epoch, epoch).of_journal()
        if table is None:
            raise SequenceNotFound(pool.geometry.name, engine, request.sequence_id)
        return pb.GetBlockTableResponse(
            block_numbers=table,
            block_size=pool.geometry.block_size,
            device_id=pool.geometry.device_id,
            first_index=first_index,
        )

    async def can_allocate(self, request: pb.CanAllocateRequest) -> pb.CanAllocateResponse:
        """Whether an engine can be granted so many blocks now."""
        engine = validate.engine_name(request.engine)
        free = self.pool(request.pool).available(engine)
        given = request.num_blocks if request.HasField("num_blocks") else None
        wanted = validate.asked_blocks(given, self.limits)
        return pb.CanAllocateResponse(can_allocate=free >= wanted, free_blocks=free)

    async def stats(self, request: pb.StatsRequest) -> pb.StatsResponse:
        """State and counters."""
        only_engine = validate.engine_name(request.engine) if request.engine else ""
        return pb.StatsResponse(
            pools=[convert.pool_stats(pool, only_engine) for pool in self.pools(request.pool)],
            server_epoch=self.host.server_epoch,
            server_version=VERSION,
        )

    @persisted
    async def step(self, request: pb.StepRequest) -> pb.StepResponse:
        """One engine iteration."""
        pool = self.pool(request.pool)
        key, columns = convert.command_key(request), convert.step_columns(request.step)
        command = convert.step_command(key, columns, pool.geometry, self.limits)
        outcome: Stepped = self.apply(pool, command)
        owed = pool.recall.answer(key[0], convert.hints(request), outcome)
        result = convert.step_result(outcome, self.retry_after)
        return pb.StepResponse(result=result, owed_blocks=owed)

    @persisted
    async def attach_engine(self, request: pb.AttachEngineRequest) -> pb.AttachEngineResponse:
        """Begin or resume a lease."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        attached = self.attach(pool, engine, request)
        self.host.end_sessions_before(pool.geometry.name, engine, attached.epoch)
        # The answer says how long the lease still lasts.
        await pool.settled()
        uri = self.host.memory_uri(pool.geometry)
        return pb.AttachEngineResponse(
            **convert.attached(attached, pool, engine, self.host.server_epoch, uri)
        )

    async def renew_lease(self, request: pb.RenewLeaseRequest) -> pb.RenewLeaseResponse:
        """Let a lease last longer."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine)
        lease = self.renew(pool, engine, request.epoch)
        owed = pool.recall.answer(engine, convert.hints(request), None)
        return pb.RenewLeaseResponse(ttl=lease.ttl, lease=lease, owed_blocks=owed)

    @persisted
    async def detach_engine(self, request: pb.DetachEngineRequest) -> pb.DetachEngineResponse:
        """End a lease in order."""
        pool = self.pool(request.pool)
        freed = self.detach(pool, Detach(*convert.command_key(request)), self.trace_id())
        return pb.DetachEngineResponse(freed_blocks=freed.num_blocks)

    def attach(
        self, pool: PoolHost, engine: str, request: pb.AttachEngineRequest | pb.SessionAttach
    ) -> Attached:
        """Begin or resume the lease that a request asks for."""
        before = pool.epoch(engine)
        if request.HasField("ttl"):
            ttl_ms = validate.ttl_ms(request.ttl, self.leases)
        elif request.epoch and request.epoch == before:
            ttl_ms = 0
        else:
            ttl_ms = validate.ttl_ms(None, self.leases)
        request_id = validate.request_id(request.request_id)
        expectation.check(request, pool.geometry)
        quarantine_ms = pool.quarantine_of(engine, ttl_ms)
        key = (engine, request.epoch, request_id)
        command = Attach(*key, request.takeover, ttl_ms, quarantine_ms)
        attached, replayed = pool.apply(command, self.trace_id())
        assert isinstance(attached, Attached)
        if not replayed:
            event = LeaseEvent.RESUMED if attached.resumed else LeaseEvent.ATTACHED
            told: dict[str, str | int] = {"peer": calls.peer(), "ttl_ms": attached.ttl_ms}
            if before and not attached.resumed:
                event = LeaseEvent.TAKEN_OVER
                told["ended_epoch"] = before
            blocks = attached.held_blocks
            name, epoch = pool.geometry.name, attached.epoch
            self.host.leases.tell(event, name, engine, epoch, blocks=blocks, **told)
        return attached

    def renew(self, pool: PoolHost, engine: str, epoch: int) -> pb.Lease:
        """Let a lease last for a full TTL from now; the lease then."""
        renewed, _ = pool.apply(Renew(engine, epoch))
        assert isinstance(renewed, Renewed)
        return convert.lease(pool, engine, epoch, renewed.ttl_ms, resumed=True)

    def detach(self, pool: PoolHost, command: Detach, trace_id: str) -> Freed:
        """End a lease in order, and its stream."""
        freed, replayed = pool.apply(command, trace_id)
        assert isinstance(freed, Freed)
        self.observe(pool, command, freed)
        lease = (pool.geometry.name, command.engine, command.epoch)
        if not replayed:
            peer, blocks = calls.peer(), freed.num_blocks
            self.host.leases.tell(LeaseEvent.DETACHED, *lease, peer=peer, blocks=blocks)
        self.host.end_session(*lease)
        return freed
