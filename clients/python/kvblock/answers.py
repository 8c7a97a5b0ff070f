"""From answer messages to values, for both clients.

Rules:
- Lists of numbers are taken with one slice each; nothing is done per element in Python.
- A message that lacks what the contract promises raises KVBlockError instead of a made-up value.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from kvblock.errors import KVBlockError
from kvblock.results import (
    Attachment,
    AuditReport,
    BlockInfo,
    BlockState,
    BlockTable,
    Capacity,
    EngineInfo,
    EngineStats,
    EngineTables,
    Granted,
    LeaseGranted,
    PoolInfo,
    PoolStats,
    RefusalReason,
    Refused,
    SequenceInfo,
    ServerStats,
    StepResult,
)
from kvblock.v1 import admin_pb2 as admin
from kvblock.v1 import kvblock_pb2 as pb


def allocated(message: pb.AllocateResponse) -> Granted | Refused:
    """What came of an Allocate."""
    kind = message.WhichOneof("result")
    if kind == "granted":
        grant = message.granted
        return Granted(
            grant.block_numbers[:], grant.block_size, grant.device_id, grant.table_length
        )
    if kind == "refused":
        return refused(message.refused)
    raise KVBlockError("the server's answer to Allocate holds no result; is it a newer version?")


def refused(message: pb.Refusal) -> Refused:
    """A refusal."""
    retry_after = None
    if message.HasField("retry_after"):
        retry_after = seconds(message.retry_after)
    return Refused(RefusalReason(message.reason), message.free_blocks, message.needed, retry_after)


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def block_table(message: pb.GetBlockTableResponse) -> BlockTable:
    """A block table."""
    return BlockTable(message.block_numbers[:], message.block_size, message.device_id)


def capacity(message: pb.CanAllocateResponse) -> Capacity:
    """Whether so many blocks are free."""
    return Capacity(message.can_allocate, message.free_blocks)


def step_result(message: pb.StepResult) -> StepResult:
    """What came of a step."""
    return StepResult(
        message.block_numbers[:],
        message.granted,
        refused(message.refusal) if message.HasField("refusal") else None,
        message.freed_counts[:],
        message.free_blocks,
    )


def attachment(message: pb.SessionAttached) -> Attachment:
    """What a session's attach answered."""
    return Attachment(
        message.pool,
        message.engine,
        message.total_blocks,
        message.block_size,
        message.device_id,
        message.held_blocks,
        message.sequences,
        message.server_epoch,
        _lease(message.lease),
        message.last_step_id,
    )


def engine_attachment(
    request: pb.AttachEngineRequest, message: pb.AttachEngineResponse, default_engine: str
) -> Attachment:
    """What a unary attach answered; it names neither pool nor engine."""
    return Attachment(
        request.pool,
        request.engine or default_engine,
        message.total_blocks,
        message.block_size,
        message.device_id,
        message.held_blocks,
        message.sequences,
        message.server_epoch,
        _lease(message.lease),
        0,
    )


def _lease(message: pb.Lease) -> LeaseGranted:
    return LeaseGranted(
        message.epoch, seconds(message.ttl), seconds(message.renew_after), message.resumed
    )


def server_stats(message: pb.StatsResponse) -> ServerStats:
    """The state of pools."""
    pools = tuple(_pool_stats(pool) for pool in message.pools)
    return ServerStats(pools, message.server_epoch, message.server_version)


def _pool_stats(message: pb.PoolStats) -> PoolStats:
    return PoolStats(
        pool=message.pool,
        total_blocks=message.total_blocks,
        free_blocks=message.free_blocks,
        held_blocks=message.held_blocks,
        block_size=message.block_size,
        device_id=message.device_id,
        sequences=message.sequences,
        allocated_blocks_total=message.allocated_blocks_total,
        freed_blocks_total=message.freed_blocks_total,
        refusals={RefusalReason(row.reason): row.count for row in message.refusals},
        revision=message.revision,
        waiting=message.waiting,
        engines=tuple(_engine_stats(row) for row in message.engines),
        quarantined_blocks=message.quarantined_blocks,
        reclaimed_blocks_total=message.reclaimed_blocks_total,
        expired_leases_total=message.expired_leases_total,
    )


def _engine_stats(message: pb.EngineStats) -> EngineStats:
    expires_in = message.lease_expires_in if message.HasField("lease_expires_in") else None
    return EngineStats(
        message.engine,
        message.held_blocks,
        message.sequences,
        message.attached,
        message.epoch,
        None if expires_in is None else seconds(expires_in),
    )


def pools(message: admin.ListPoolsResponse) -> tuple[PoolInfo, ...]:
    """The pools of a server."""
    return tuple(pool(row) for row in message.pools)


def pool(message: admin.Pool) -> PoolInfo:
    """A pool."""
    return PoolInfo(
        message.pool,
        message.total_blocks,
        message.block_size,
        message.device_id,
        message.is_default,
        seconds(message.quarantine) if message.HasField("quarantine") else None,
    )


def engines(message: admin.ListEnginesResponse) -> list[EngineInfo]:
    """One page of engines."""
    return [
        EngineInfo(
            row.pool,
            row.engine,
            row.epoch,
            seconds(row.lease_expires_in) if row.HasField("lease_expires_in") else None,
            row.held_blocks,
            row.sequences,
            row.has_stream,
            seconds(row.since_heartbeat) if row.HasField("since_heartbeat") else None,
        )
        for row in message.engines
    ]


def blocks(message: admin.ListBlocksResponse) -> list[BlockInfo]:
    """One page of blocks."""
    return [
        BlockInfo(
            row.block_number,
            BlockState(row.state),
            row.engine,
            row.sequence_id if row.HasField("sequence_id") else None,
            row.since.seconds + row.since.nanos / 1e9 if row.HasField("since") else None,
            row.trace_id,
            seconds(row.quarantine_ends_in) if row.HasField("quarantine_ends_in") else None,
        )
        for row in message.blocks
    ]


class TablesReader:
    """Puts the pages of an engine's block tables together."""

    def __init__(self) -> None:
        self._tables: dict[int, list[int]] = {}
        self._revisions: set[int] = set()
        self._revision = 0

    def take(self, page: admin.ListSequencesResponse) -> str:
        """Take one page; gives what asks for the next one, empty when this was the last."""
        self._tables |= {row.sequence_id: row.block_numbers[:] for row in page.sequences}
        self._revision = page.revision
        self._revisions.add(page.revision)
        return page.next_page_token

    def tables(self) -> EngineTables:
        """The tables of all pages."""
        return EngineTables(self._tables, self._revision, len(self._revisions) == 1)


def sequences(message: admin.ListSequencesResponse) -> list[SequenceInfo]:
    """One page of sequences."""
    return [
        SequenceInfo(row.engine, row.sequence_id, row.num_blocks, row.block_numbers[:])
        for row in message.sequences
    ]


def audit_reports(message: admin.AuditResponse) -> tuple[AuditReport, ...]:
    """What a recount found."""
    return tuple(
        AuditReport(
            pool=row.pool,
            clean=row.clean,
            total_blocks=row.total_blocks,
            free_blocks=row.free_blocks,
            held_blocks=row.held_blocks,
            sequences=row.sequences,
            violations=tuple(row.violations),
            quarantined_blocks=row.quarantined_blocks,
        )
        for row in message.reports
    )
