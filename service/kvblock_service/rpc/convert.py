"""Between messages and the core's values.

Rules:
- No decision is made here; what a field may hold was checked in `validate`.
- The columns of a step cross in bulk: a slice out of the message, packed bytes into it.
"""

from typing import Any, Protocol, TypeAlias

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import (
    Attached,
    Granted,
    RefusalReason,
    Refused,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.listing import EngineState
from kvblock_service.core.pool import Geometry
from kvblock_service.core.recall import Hints
from kvblock_service.errors import InvalidField
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import validate
from kvblock_service.rpc.errors import duration_of
from kvblock_service.rpc.step_wire import StepColumns, write_stepped

_POLICIES: dict[int, StepPolicy] = {
    pb.STEP_POLICY_UNSPECIFIED: StepPolicy.ALL_OR_NOTHING,
    pb.STEP_POLICY_ALL_OR_NOTHING: StepPolicy.ALL_OR_NOTHING,
    pb.STEP_POLICY_IN_ORDER_UNTIL_REFUSED: StepPolicy.IN_ORDER_UNTIL_REFUSED,
}

_Hinting: TypeAlias = pb.SessionStep | pb.SessionRenew | pb.StepRequest | pb.RenewLeaseRequest
CommandKey: TypeAlias = tuple[str, int, str]
"""Whose a command is, and what makes it safe to repeat: its engine, epoch and request_id."""


class _Keyed(Protocol):
    """A request with such a key."""

    engine: str
    epoch: int
    request_id: str


def command_key(request: _Keyed) -> CommandKey:
    """The key of a request; raises InvalidField where it is none."""
    engine = validate.engine_name(request.engine)
    return engine, request.epoch, validate.request_id(request.request_id)


def hints(request: _Hinting) -> Hints | None:
    """The hints beside a step or a renewal; None where there are none."""
    if not request.HasField("hints"):
        return None
    return Hints(request.hints.want_blocks, request.hints.idle_blocks)


def session_step(request: pb.SessionStep) -> StepColumns:
    """The columns of a session's step, and what stands beside its work."""
    columns = step_columns(request.step, request.step_id, request.traceparent)
    return columns._replace(hints=hints(request))


def step_columns(step: pb.EngineStep, step_id: int = 0, traceparent: str = "") -> StepColumns:
    """The columns of a step; it has a step_id and a traceparent in a session only."""
    return StepColumns(
        step_id,
        step.free_sequence_ids[:],
        step.allocate_sequence_ids[:],
        step.allocate_num_blocks[:],
        step.policy,
        traceparent,
        step.release_block_numbers[:],
        step.acquire_num_blocks,
        step.trim_sequence_ids[:],
        step.trim_head_blocks[:],
        step.trim_tail_blocks[:],
    )


def step_command(
    key: CommandKey, step: StepColumns, geometry: Geometry, limits: validate.RequestLimits
) -> Step:
    """The command of a step (step_id 0 outside a session); raises InvalidField, RequestLimit."""
    # fmt: off
    (
        step_id, free_ids, allocate_ids, counts, policy_number, _,
        release, acquire, trim_ids, trim_heads, trim_tails, _,
    ) = step
    # fmt: on
    validate.step_columns(free_ids, allocate_ids, counts, limits, acquire)
    if release:
        validate.released_blocks(release, geometry.total_blocks, limits)
    if trim_ids or trim_heads or trim_tails:
        validate.trims(trim_ids, trim_heads, trim_tails, limits)
    policy = _POLICIES.get(policy_number)
    if policy is None:
        raise InvalidField("step.policy", policy_number, "is not a StepPolicy")
    return Step(
        *key,
        step_id,
        free_ids,
        allocate_ids,
        counts,
        policy,
        release,
        acquire,
        trim_ids,
        trim_heads,
        trim_tails,
    )


def stepped(step_id: int, outcome: Stepped, retry_after: float, owed_blocks: int = 0) -> bytes:
    """The written SessionResponse of a step."""
    blocks, granted, refused, freed_counts, free_blocks, acquired, trimmed = outcome
    why = b"" if refused is None else refusal(refused, retry_after).SerializeToString()
    return write_stepped(
        step_id, blocks, granted, why, freed_counts, free_blocks, acquired, trimmed, owed_blocks
    )


def step_result(outcome: Stepped, retry_after: float) -> pb.StepResult:
    """What came of a step."""
    return pb.SessionResponse.FromString(stepped(0, outcome, retry_after)).stepped.result


def refusal(refused: Refused, retry_after: float) -> pb.Refusal:
    """A refusal; `retry_after` seconds are named only where trying again can help."""
    message = pb.Refusal(
        reason=pb.RefusalReason.ValueType(refused.reason.value),
        free_blocks=refused.free_blocks,
        needed=refused.needed,
    )
    if refused.reason is RefusalReason.POOL_EXHAUSTED:
        message.retry_after.CopyFrom(duration_of(retry_after))
    return message


def allocation(
    outcome: Granted | Refused, geometry: Geometry, retry_after: float
) -> pb.AllocateResponse:
    """What came of an Allocate."""
    if isinstance(outcome, Refused):
        return pb.AllocateResponse(refused=refusal(outcome, retry_after))
    # Filled in place: a message that is made aside would be copied into the answer.
    answer = pb.AllocateResponse()
    grant = answer.granted
    grant.block_numbers.extend(outcome.blocks)
    grant.block_size = geometry.block_size
    grant.device_id = geometry.device_id
    grant.table_length = outcome.table_length
    return answer


def pool_stats(pool: PoolHost, only_engine: str) -> pb.PoolStats:
    """One pool's state and counters, with its engines or just the named one."""
    state = pool.state()
    geometry = pool.geometry
    engines = state.engines
    if only_engine:
        found = [engine for engine in engines if engine.name == only_engine]
        engines = found or [EngineState(only_engine, 0, 0, 0, 0)]
    return pb.PoolStats(
        pool=geometry.name,
        total_blocks=geometry.total_blocks,
        free_blocks=state.free_blocks,
        held_blocks=state.held_blocks,
        block_size=geometry.block_size,
        device_id=geometry.device_id,
        sequences=state.sequences,
        allocated_blocks_total=state.allocated_total,
        freed_blocks_total=state.freed_total,
        refusals=[
            pb.RefusalCount(reason=pb.RefusalReason.ValueType(reason.value), count=count)
            for reason, count in state.refused_total.items()
            if count
        ],
        revision=state.revision,
        waiting=state.waiting,
        engines=[_engine_stats(engine) for engine in engines],
        quarantined_blocks=state.quarantined_blocks,
        reclaimed_blocks_total=state.reclaimed_total,
        expired_leases_total=state.expired_total,
        reserved_blocks=state.reserved_blocks,
        acquired_blocks=state.acquired_blocks,
        want_blocks=state.want_blocks,
        idle_blocks=state.idle_blocks,
        owed_blocks=state.owed_blocks,
    )


def _engine_stats(engine: EngineState) -> pb.EngineStats:
    return pb.EngineStats(
        engine=engine.name,
        held_blocks=engine.held_blocks,
        sequences=engine.sequences,
        attached=bool(engine.epoch),
        epoch=engine.epoch,
        lease_expires_in=duration_of(engine.expires_in_ms / 1000) if engine.epoch else None,
        acquired_blocks=engine.acquired_blocks,
        want_blocks=engine.want_blocks,
        idle_blocks=engine.idle_blocks,
        owed_blocks=engine.owed_blocks,
    )


def lease(pool: PoolHost, engine: str, epoch: int, ttl_ms: int, *, resumed: bool) -> pb.Lease:
    """A lease at this moment; it is to be renewed three times in its TTL."""
    ttl = ttl_ms / 1000
    return pb.Lease(
        epoch=epoch,
        ttl=duration_of(ttl),
        renew_after=duration_of(ttl / 3),
        resumed=resumed,
        expires_in=duration_of(pool.expires_in_ms(engine, epoch) / 1000),
    )


def attached(
    outcome: Attached, pool: PoolHost, engine: str, server_epoch: int, memory_uri: str
) -> dict[str, Any]:
    """What the answers to an attach have in common."""
    geometry = pool.geometry
    given = (pool, engine, outcome.epoch, outcome.ttl_ms)
    return {
        "lease": lease(*given, resumed=outcome.resumed),
        "held_blocks": outcome.held_blocks,
        "acquired_blocks": outcome.acquired_blocks,
        "sequences": outcome.sequences,
        "server_epoch": server_epoch,
        "total_blocks": geometry.total_blocks,
        "block_size": geometry.block_size,
        "device_id": geometry.device_id,
        "reserved_blocks": geometry.reserved_blocks,
        "block_bytes": geometry.block_bytes,
        "regions": geometry.regions,
        "layout": geometry.layout,
        "memory_uri": memory_uri,
    }
