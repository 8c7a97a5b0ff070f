"""Between the messages of KVBlockAdmin and the core's values.

Rules:
- No decision is made here; what a field may hold was checked in `validate`.
- A field without a value is left unset.
"""

from collections.abc import Sequence

from kvblock.v1 import admin_pb2 as pb
from kvblock_service.core.audit import Report
from kvblock_service.core.listing import BlockRow, BlockState, EngineState, SequenceRow
from kvblock_service.core.pool import Geometry
from kvblock_service.errors import InvalidField
from kvblock_service.rpc.errors import duration_of

_STATES = {state.value: state for state in BlockState}


def pool(
    geometry: Geometry, quarantine_ms: int | None, default_pool: str, memory_uri: str
) -> pb.Pool:
    """What a pool is, and where its memory is."""
    return pb.Pool(
        pool=geometry.name,
        total_blocks=geometry.total_blocks,
        block_size=geometry.block_size,
        device_id=geometry.device_id,
        is_default=geometry.name == default_pool,
        quarantine=None if quarantine_ms is None else duration_of(quarantine_ms / 1000),
        reserved_blocks=geometry.reserved_blocks,
        block_bytes=geometry.block_bytes,
        regions=geometry.regions,
        layout=geometry.layout,
        memory=geometry.memory,
        memory_uri=memory_uri,
    )


def engine(pool_name: str, state: EngineState, has_stream: bool) -> pb.EngineInfo:
    """An engine in a pool."""
    message = pb.EngineInfo(
        pool=pool_name,
        engine=state.name,
        epoch=state.epoch,
        held_blocks=state.held_blocks,
        sequences=state.sequences,
        has_stream=has_stream,
        acquired_blocks=state.acquired_blocks,
        want_blocks=state.want_blocks,
        idle_blocks=state.idle_blocks,
        owed_blocks=state.owed_blocks,
    )
    if state.epoch:
        message.lease_expires_in.FromMilliseconds(state.expires_in_ms)
        message.since_heartbeat.FromMilliseconds(state.since_heartbeat_ms)
    return message


def block_states(values: Sequence[int]) -> list[BlockState]:
    """The states that a listing is narrowed to; raises InvalidField for one that is none."""
    for row, value in enumerate(values):
        if value not in _STATES:
            raise InvalidField(f"states[{row}]", value, "is not a BlockState")
    return [_STATES[value] for value in values]


def block(row: BlockRow) -> pb.BlockInfo:
    """A block and who was granted it."""
    message = pb.BlockInfo(
        block_number=row.number,
        state=pb.BlockState.ValueType(row.state.value),
        sequence_id=row.sequence_id,
    )
    if row.grant is not None:
        message.engine = row.grant.engine
        message.trace_id = row.grant.trace_id
        message.since.FromMilliseconds(row.grant.since_ms)
    if row.ends_in_ms is not None:
        message.quarantine_ends_in.FromMilliseconds(row.ends_in_ms)
    return message


def sequence(row: SequenceRow) -> pb.SequenceInfo:
    """A sequence."""
    engine, sequence_id, num_blocks, blocks, first_index = row
    return pb.SequenceInfo(
        engine=engine,
        sequence_id=sequence_id,
        num_blocks=num_blocks,
        block_numbers=blocks,
        first_index=first_index,
    )


def report(geometry: Geometry, found: Report) -> pb.AuditReport:
    """What a recount of a pool found."""
    return pb.AuditReport(
        pool=geometry.name,
        clean=not found.violations,
        total_blocks=geometry.total_blocks,
        free_blocks=found.free_blocks,
        held_blocks=found.held_blocks,
        quarantined_blocks=found.quarantined_blocks,
        sequences=found.sequences,
        violations=found.violations,
        reserved_blocks=found.reserved_blocks,
        acquired_blocks=found.acquired_blocks,
    )
