"""Between messages and the core's values.

Rules:
- No decision is made here; what a field may hold was checked in `validate`.
- The columns of a step cross in bulk: a slice out of the message, packed bytes into it.
"""

from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1.columns import FIXED32, packed_field
from kvblock_service.core.commands import Granted, RefusalReason, Refused, Step, Stepped, StepPolicy
from kvblock_service.core.pool import Geometry
from kvblock_service.errors import InvalidField
from kvblock_service.host import Host
from kvblock_service.pool_host import EngineState, PoolHost
from kvblock_service.rpc import validate
from kvblock_service.rpc.errors import duration_of

_POLICIES = {
    pb.STEP_POLICY_UNSPECIFIED: StepPolicy.ALL_OR_NOTHING,
    pb.STEP_POLICY_ALL_OR_NOTHING: StepPolicy.ALL_OR_NOTHING,
    pb.STEP_POLICY_IN_ORDER_UNTIL_REFUSED: StepPolicy.IN_ORDER_UNTIL_REFUSED,
}


def step_command(engine: str, step: pb.EngineStep, limits: validate.RequestLimits) -> Step:
    """The command of an EngineStep.

    Raises:
        InvalidField, RequestLimit: the step is none.

    """
    free_ids = step.free_sequence_ids[:]
    allocate_ids = step.allocate_sequence_ids[:]
    counts = step.allocate_num_blocks[:]
    validate.step_columns(free_ids, allocate_ids, counts, limits)
    policy = _POLICIES.get(step.policy)
    if policy is None:
        raise InvalidField("step.policy", step.policy, "is no StepPolicy")
    return Step(engine, free_ids, allocate_ids, counts, policy)


def fill_step_result(into: pb.StepResult, outcome: Stepped, retry_after: float) -> None:
    """Write what came of a step."""
    blocks, granted, refused, freed_counts, free_blocks = outcome
    into.MergeFromString(
        packed_field(pb.StepResult.BLOCK_NUMBERS_FIELD_NUMBER, FIXED32, blocks)
        + packed_field(pb.StepResult.FREED_COUNTS_FIELD_NUMBER, FIXED32, freed_counts)
    )
    into.granted = granted
    into.free_blocks = free_blocks
    if refused is not None:
        into.refusal.CopyFrom(refusal(refused, retry_after))


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
    grant = pb.Grant(
        block_numbers=outcome.blocks,
        block_size=geometry.block_size,
        device_id=geometry.device_id,
        table_length=outcome.table_length,
    )
    return pb.AllocateResponse(granted=grant)


def pool_stats(host: Host, pool: PoolHost, only_engine: str) -> pb.PoolStats:
    """One pool's state and counters, with its engines or just the named one."""
    state = pool.state()
    geometry = pool.geometry
    attached = host.attached(geometry.name)
    engines = {engine.name: engine for engine in state.engines}
    if only_engine:
        engines = {only_engine: engines.get(only_engine, EngineState(only_engine, 0, 0))}
    else:
        engines |= {name: EngineState(name, 0, 0) for name in attached if name not in engines}
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
        engines=[
            pb.EngineStats(
                engine=engine.name,
                held_blocks=engine.held_blocks,
                sequences=engine.sequences,
                attached=engine.name in attached,
            )
            for _, engine in sorted(engines.items())
        ],
    )
