"""From answer messages to values, for both clients.

Rules:
- Lists of numbers are taken with one slice each; nothing is done per element in Python.
- Blocks, sequences and the answers of an engine's calls are read field by field, which is fastest;
  other values mirror their message, whose fields have the same names.
- A message that lacks what the contract promises raises KVBlockError instead of a made-up value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from kvblock import wire
from kvblock.errors import KVBlockError
from kvblock.operator_results import BlockInfo, BlockState, EngineInfo, SequenceInfo
from kvblock.results import (
    Attachment,
    EngineStats,
    Granted,
    LeaseGranted,
    PoolStats,
    RefusalReason,
    Refused,
    ServerStats,
    StepResult,
)
from kvblock.v1 import admin_pb2 as admin
from kvblock.v1 import kvblock_pb2 as pb

ValueT = TypeVar("ValueT")

_SERVING = 1
"""Of grpc.health.v1.HealthCheckResponse.ServingStatus."""


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


def seconds(time: Duration | Timestamp) -> float:
    """A duration in seconds, or a moment in seconds since 1970."""
    return time.seconds + time.nanos / 1e9


def step_result(message: pb.StepResult, owed_blocks: int) -> StepResult:
    """What came of a step."""
    return StepResult(
        message.block_numbers[:],
        message.granted,
        refused(message.refusal) if message.HasField("refusal") else None,
        message.freed_counts[:],
        message.free_blocks,
        message.acquired_block_numbers[:],
        message.trimmed_counts[:],
        owed_blocks,
    )


def attachment(
    message: pb.SessionAttached | pb.AttachEngineResponse, **asked: object
) -> Attachment:
    """What an attach answered; a unary one leaves out what `asked` gives."""
    lease = message.lease
    granted = LeaseGranted(
        lease.epoch,
        seconds(lease.ttl),
        seconds(lease.renew_after),
        lease.resumed,
        seconds(lease.expires_in),
    )
    return mirror(Attachment, message, lease=granted, **asked)


def serving(answer: bytes) -> bool:
    """Whether a HealthCheckResponse says SERVING; one that cannot be read does not."""
    try:
        return bool(wire.HealthCheckResponse.FromString(answer).status == _SERVING)
    except DecodeError:
        return False


def server_stats(message: pb.StatsResponse) -> ServerStats:
    """The state of pools."""
    pools = tuple(
        mirror(
            PoolStats,
            pool,
            refusals={RefusalReason(row.reason): row.count for row in pool.refusals},
            engines=tuple(mirror(EngineStats, row) for row in pool.engines),
        )
        for pool in message.pools
    )
    return mirror(ServerStats, message, pools=pools)


def engines(message: admin.ListEnginesResponse) -> list[EngineInfo]:
    """One page of engines."""
    return [mirror(EngineInfo, row) for row in message.engines]


def blocks(message: admin.ListBlocksResponse) -> list[BlockInfo]:
    """One page of blocks."""
    return [
        BlockInfo(
            row.block_number,
            BlockState(row.state),
            row.engine,
            row.sequence_id if row.HasField("sequence_id") else None,
            seconds(row.since) if row.HasField("since") else None,
            row.trace_id,
            seconds(row.quarantine_ends_in) if row.HasField("quarantine_ends_in") else None,
        )
        for row in message.blocks
    ]


def sequences(message: admin.ListSequencesResponse) -> list[SequenceInfo]:
    """One page of sequences."""
    return [
        SequenceInfo(
            row.engine, row.sequence_id, row.num_blocks, row.block_numbers[:], row.first_index
        )
        for row in message.sequences
    ]


def mirror(kind: Callable[..., ValueT], message: Message, **given: object) -> ValueT:
    """A value whose fields are those of a message with the same names, except for those given."""
    return kind(
        *(given[name] if name in given else _plain(message, name) for name in _field_names(kind))
    )


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _plain(message: Message, name: str) -> object:
    """A number, a text, or a time in seconds; None where it is optional and not there."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.has_presence and not message.HasField(name):
        return None
    value = getattr(message, name)
    return value if field.message_type is None else seconds(value)
