"""The methods of KVBlockAdmin.

Rules:
- A method converts, calls, converts back.
- A page token is the last row of its page, so that rows which come or go do not shift the others.
- What an operator changes is logged with where the call came from and what came of it.
"""

import logging

from kvblock.v1 import admin_pb2 as pb
from kvblock_service.core.commands import Reclaim
from kvblock_service.core.listing import Wanted
from kvblock_service.host import Host
from kvblock_service.rpc import calls, convert_admin, validate
from kvblock_service.rpc.service import ServiceOptions

_log = logging.getLogger(__name__)


class KVBlockAdmin:
    """Shows and changes the pools of a host; each method takes a request and gives its answer."""

    def __init__(self, host: Host, options: ServiceOptions) -> None:
        self._host = host
        self._limits = options.limits
        self._ttl_ms = round(options.leases.ttl * 1000)
        self._trace_id = options.trace_id

    async def list_pools(self, _: pb.ListPoolsRequest) -> pb.ListPoolsResponse:
        """The pools as they were configured or created."""
        default = self._host.default_pool
        return pb.ListPoolsResponse(
            pools=[
                convert_admin.pool(pool.geometry, pool.quarantine_ms, default)
                for pool in self._host.pools.values()
            ]
        )

    async def create_pool(self, request: pb.CreatePoolRequest) -> pb.CreatePoolResponse:
        """Make a pool."""
        geometry = validate.new_geometry(
            request.pool, request.total_blocks, request.block_size, request.device_id
        )
        wish = request.quarantine if request.HasField("quarantine") else None
        quarantine_ms = validate.quarantine_ms(wish)
        request_id = validate.request_id(request.request_id)
        if self._host.create_pool(geometry, quarantine_ms, request_id):
            name, total_blocks, block_size, device_id = geometry
            _log.info(
                "an operator created a pool",
                extra={
                    "peer": calls.peer(),
                    "pool": name,
                    "total_blocks": total_blocks,
                    "block_size": block_size,
                    "device_id": device_id,
                    "quarantine_ms": quarantine_ms,
                },
            )
        await self._host.settled()
        made = convert_admin.pool(geometry, quarantine_ms, self._host.default_pool)
        return pb.CreatePoolResponse(pool=made)

    async def delete_pool(self, request: pb.DeletePoolRequest) -> pb.DeletePoolResponse:
        """Delete a pool that nobody uses."""
        name = validate.name("pool", request.pool)
        if self._host.delete_pool(name, validate.request_id(request.request_id)):
            _log.info("an operator deleted a pool", extra={"peer": calls.peer(), "pool": name})
        await self._host.settled()
        return pb.DeletePoolResponse()

    async def list_engines(self, request: pb.ListEnginesRequest) -> pb.ListEnginesResponse:
        """One page of the engines of one pool or of all."""
        if request.pool:
            pools = [self._host.pool(validate.pool_name(request.pool))]
        else:
            pools = list(self._host.pools.values())
        size = validate.page_size(request.page_size, self._limits)
        after = validate.engine_token(request.page_token) or ("", "")
        rows: list[pb.EngineInfo] = []
        for pool in pools:
            name = pool.geometry.name
            if len(rows) > size or name < after[0]:
                continue
            for engine in pool.state().engines:
                if (name, engine.name) > after:
                    has_stream = self._host.has_stream(name, engine.name, engine.epoch)
                    rows.append(convert_admin.engine(name, engine, has_stream))
        last = rows[size - 1] if len(rows) > size else None
        token = f"{last.engine}@{last.pool}" if last else ""
        return pb.ListEnginesResponse(engines=rows[:size], next_page_token=token)

    async def reclaim_engine(self, request: pb.ReclaimEngineRequest) -> pb.ReclaimEngineResponse:
        """End an engine from outside."""
        pool = self._host.pool(validate.pool_name(request.pool))
        engine = validate.engine_name(request.engine)
        request_id = validate.request_id(request.request_id)
        epoch = pool.epoch(engine)
        quarantine_ms = pool.quarantine_of(engine, self._ttl_ms)
        command = Reclaim(engine, request.epoch, request_id, quarantine_ms)
        revision = pool.state().revision
        freed = pool.reclaim(command, self._trace_id(), force=request.force)
        if pool.state().revision != revision:
            self._host.end_session(pool.geometry.name, engine, epoch)
            _log.info(
                "an operator reclaimed an engine",
                extra={
                    "peer": calls.peer(),
                    "pool": pool.geometry.name,
                    "engine": engine,
                    "epoch": epoch,
                    "blocks": freed.num_blocks,
                    "quarantine_ms": quarantine_ms,
                },
            )
        await pool.settled()
        return pb.ReclaimEngineResponse(reclaimed_blocks=freed.num_blocks)

    async def list_blocks(self, request: pb.ListBlocksRequest) -> pb.ListBlocksResponse:
        """One page of a pool's blocks."""
        pool = self._host.pool(validate.pool_name(request.pool))
        wanted = Wanted(
            validate.engine_name(request.engine) if request.engine else "",
            validate.block_numbers(request.block_numbers, pool.geometry.total_blocks, self._limits),
            convert_admin.block_states(request.states),
        )
        size = validate.page_size(request.page_size, self._limits)
        page = pool.blocks(wanted, validate.block_token(request.page_token), size)
        return pb.ListBlocksResponse(
            blocks=[convert_admin.block(row) for row in page.rows],
            next_page_token="" if page.last is None else str(page.last),
            revision=page.revision,
        )

    async def list_sequences(self, request: pb.ListSequencesRequest) -> pb.ListSequencesResponse:
        """One page of a pool's sequences."""
        pool = self._host.pool(validate.pool_name(request.pool))
        engine = validate.engine_name(request.engine) if request.engine else ""
        size = validate.page_size(request.page_size, self._limits)
        numbers_max = self._limits.blocks_per_request_max if request.with_block_numbers else 0
        after = validate.page_token(request.page_token)
        page = pool.sequences(engine, after, size, numbers_max)
        last = page.rows[-1] if page.more else None
        return pb.ListSequencesResponse(
            sequences=[
                pb.SequenceInfo(
                    engine=row.engine,
                    sequence_id=row.sequence_id,
                    num_blocks=row.num_blocks,
                    block_numbers=row.blocks,
                )
                for row in page.rows
            ],
            next_page_token=f"{last.sequence_id}@{last.engine}" if last else "",
            revision=page.revision,
        )

    async def audit(self, request: pb.AuditRequest) -> pb.AuditResponse:
        """Recount the pools."""
        if request.pool:
            pools = [self._host.pool(validate.pool_name(request.pool))]
        else:
            pools = list(self._host.pools.values())
        return pb.AuditResponse(
            reports=[convert_admin.report(pool.geometry, pool.audit()) for pool in pools]
        )

    async def drain(self, _: pb.DrainRequest) -> pb.DrainResponse:
        """Begin the drain; whoever runs the server carries it out."""
        _log.info("an operator asked for a drain", extra={"peer": calls.peer()})
        self._host.ask_to_stop("Drain")
        return pb.DrainResponse()
