"""The methods of KVBlockAdmin.

Rules:
- A page token is the last row of its page, so that rows which come or go do not shift the others.
- What an operator changes is logged with where the call came from and what came of it.
"""

import logging

from kvblock.v1 import admin_pb2 as pb
from kvblock_service.core import listing
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Geometry, Reclaim
from kvblock_service.rpc import calls, convert, convert_admin, validate
from kvblock_service.rpc.methods import PoolMethods, persisted

_log = logging.getLogger(__name__)


class KVBlockAdmin(PoolMethods):
    """Shows and changes the pools of a host for its operators."""

    async def list_pools(self, _: pb.ListPoolsRequest) -> pb.ListPoolsResponse:
        """The pools as they were configured or created."""
        pools = self.host.pools.values()
        rows = [self._pool(pool.geometry, pool.quarantine_ms) for pool in pools]
        return pb.ListPoolsResponse(pools=rows)

    @persisted
    async def create_pool(self, request: pb.CreatePoolRequest) -> pb.CreatePoolResponse:
        """Make a pool."""
        geometry = validate.new_geometry(
            Geometry(
                request.pool,
                request.total_blocks,
                request.block_size,
                request.device_id,
                request.reserved_blocks,
                request.block_bytes,
                request.regions,
                request.layout,
                request.memory,
            )
        )
        wish = request.quarantine if request.HasField("quarantine") else None
        quarantine_ms = validate.quarantine_ms(wish)
        request_id = validate.request_id(request.request_id)
        if await self.host.create_pool_and_memory(geometry, quarantine_ms, request_id):
            told = geometry._asdict() | {"quarantine_ms": quarantine_ms}
            _tell("an operator created a pool", pool=told.pop("name"), **told)
        return pb.CreatePoolResponse(pool=self._pool(geometry, quarantine_ms))

    @persisted
    async def delete_pool(self, request: pb.DeletePoolRequest) -> pb.DeletePoolResponse:
        """Delete a pool that nobody uses."""
        name = validate.name("pool", request.pool)
        request_id = validate.request_id(request.request_id)
        if await self.host.delete_pool_and_memory(name, request_id):
            _tell("an operator deleted a pool", pool=name)
        return pb.DeletePoolResponse()

    async def list_engines(self, request: pb.ListEnginesRequest) -> pb.ListEnginesResponse:
        """One page of the engines of one pool or of all."""
        pools = self.pools(request.pool)
        size = validate.page_size(request.page_size, self.limits)
        after = validate.engine_token(request.page_token) or ("", "")
        rows: list[pb.EngineInfo] = []
        for pool in pools:
            name = pool.geometry.name
            if len(rows) > size or name < after[0]:
                continue
            for engine in pool.state().engines:
                if (name, engine.name) > after:
                    has_stream = self.host.has_stream(name, engine.name, engine.epoch)
                    rows.append(convert_admin.engine(name, engine, has_stream))
        last = rows[size - 1] if len(rows) > size else None
        token = f"{last.engine}@{last.pool}" if last else ""
        return pb.ListEnginesResponse(engines=rows[:size], next_page_token=token)

    @persisted
    async def reclaim_engine(self, request: pb.ReclaimEngineRequest) -> pb.ReclaimEngineResponse:
        """End an engine from outside."""
        pool = self.pool(request.pool)
        key = convert.command_key(request)
        engine = key[0]
        epoch = pool.epoch(engine)
        quarantine_ms = pool.quarantine_of(engine, round(self.leases.ttl * 1000))
        revision = pool.state().revision
        command = Reclaim(*key, quarantine_ms)
        freed = pool.reclaim(command, self.trace_id(), force=request.force)
        if pool.state().revision != revision:
            name, blocks = pool.geometry.name, freed.num_blocks
            self.host.end_session(name, engine, epoch)
            told = {"pool": name, "engine": engine, "epoch": epoch, "blocks": blocks}
            _tell("an operator reclaimed an engine", **told, quarantine_ms=quarantine_ms)
        return pb.ReclaimEngineResponse(reclaimed_blocks=freed.num_blocks)

    async def list_blocks(self, request: pb.ListBlocksRequest) -> pb.ListBlocksResponse:
        """One page of a pool's blocks."""
        pool = self.pool(request.pool)
        wanted = listing.Wanted(
            validate.engine_name(request.engine) if request.engine else "",
            validate.block_numbers(request.block_numbers, pool.geometry.total_blocks, self.limits),
            convert_admin.block_states(request.states),
        )
        size = validate.page_size(request.page_size, self.limits)
        after = validate.block_token(request.page_token)
        page = pool.locked(listing.blocks, wanted, after, size, pool.now_ms())
        return pb.ListBlocksResponse(
            blocks=[convert_admin.block(row) for row in page.rows],
            next_page_token="" if page.last is None else str(page.last),
            revision=page.revision,
        )

    async def list_sequences(self, request: pb.ListSequencesRequest) -> pb.ListSequencesResponse:
        """One page of a pool's sequences."""
        pool = self.pool(request.pool)
        engine = validate.engine_name(request.engine) if request.engine else ""
        size = validate.page_size(request.page_size, self.limits)
        numbers_max = self.limits.blocks_per_request_max if request.with_block_numbers else 0
        after = validate.page_token(request.page_token)
        page = pool.locked(listing.sequences, engine, after, size, numbers_max)
        last = page.rows[-1] if page.more else None
        return pb.ListSequencesResponse(
            sequences=[convert_admin.sequence(row) for row in page.rows],
            next_page_token=f"{last.sequence_id}@{last.engine}" if last else "",
            revision=page.revision,
        )

    async def audit(self, request: pb.AuditRequest) -> pb.AuditResponse:
        """Recount the pools."""
        found = [(pool.geometry, pool.locked(audit)) for pool in self.pools(request.pool)]
        return pb.AuditResponse(reports=[convert_admin.report(*one) for one in found])

    async def drain(self, _: pb.DrainRequest) -> pb.DrainResponse:
        """Begin the drain; whoever runs the server carries it out."""
        _tell("an operator asked for a drain")
        self.host.ask_to_stop("Drain")
        return pb.DrainResponse()

    def _pool(self, geometry: Geometry, quarantine_ms: int | None) -> pb.Pool:
        uri = self.host.memory_uri(geometry)
        return convert_admin.pool(geometry, quarantine_ms, self.host.default_pool, uri)


def _tell(event: str, **told: object) -> None:
    _log.info(event, extra={"peer": calls.peer(), **told})
