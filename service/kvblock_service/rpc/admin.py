"""The methods of KVBlockAdmin.

Rules:
- A method converts, calls, converts back.
- A page token is the last row of its page, so that rows which come or go do not shift the others.
"""

from kvblock.v1 import admin_pb2 as pb
from kvblock_service.host import Host
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import validate


class KVBlockAdmin:
    """Shows an operator the pools of a host; each method takes a request and gives its answer."""

    def __init__(self, host: Host, limits: validate.RequestLimits) -> None:
        self._host = host
        self._limits = limits

    async def list_pools(self, _: pb.ListPoolsRequest) -> pb.ListPoolsResponse:
        """The pools as they were configured."""
        return pb.ListPoolsResponse(pools=[self._pool(pool) for pool in self._host.pools.values()])

    async def list_sequences(self, request: pb.ListSequencesRequest) -> pb.ListSequencesResponse:
        """One page of a pool's sequences."""
        pool = self._host.pool(validate.pool_name(request.pool))
        engine = validate.engine_name(request.engine) if request.engine else ""
        size = validate.page_size(request.page_size, self._limits)
        rows = pool.sequences(engine, validate.page_token(request.page_token), size + 1)
        more = len(rows) > size
        last = rows[size - 1] if more else None
        return pb.ListSequencesResponse(
            sequences=[
                pb.SequenceInfo(
                    engine=row.engine, sequence_id=row.sequence_id, num_blocks=row.num_blocks
                )
                for row in rows[:size]
            ],
            next_page_token=f"{last.sequence_id}@{last.engine}" if last else "",
        )

    async def audit(self, request: pb.AuditRequest) -> pb.AuditResponse:
        """Recount the pools."""
        if request.pool:
            pools = [self._host.pool(validate.pool_name(request.pool))]
        else:
            pools = list(self._host.pools.values())
        return pb.AuditResponse(reports=[self._report(pool) for pool in pools])

    def _pool(self, pool: PoolHost) -> pb.Pool:
        name, total_blocks, block_size, device_id = pool.geometry
        return pb.Pool(
            pool=name,
            total_blocks=total_blocks,
            block_size=block_size,
            device_id=device_id,
            is_default=name == self._host.default_pool,
        )

    @staticmethod
    def _report(pool: PoolHost) -> pb.AuditReport:
        report = pool.audit()
        return pb.AuditReport(
            pool=pool.geometry.name,
            clean=not report.violations,
            total_blocks=pool.geometry.total_blocks,
            free_blocks=report.free_blocks,
            held_blocks=report.held_blocks,
            quarantined_blocks=report.quarantined_blocks,
            sequences=report.sequences,
            violations=report.violations,
        )
