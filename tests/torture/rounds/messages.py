"""Between the core's values and the messages of the API, from the side of a client."""

from typing import Any

from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    BlockNotHeld,
    Command,
    Detach,
    EngineHeld,
    Fenced,
    Free,
    Freed,
    Granted,
    IdReused,
    LimitReached,
    Outcome,
    Reclaim,
    RefusalReason,
    Refused,
    Renew,
    Renewed,
    Step,
    StepOutOfOrder,
    Stepped,
)
from kvblock_service.rpc.errors import duration_of
from tests.integration.sessions.wire import Problem

_REASONS = {
    BlockNotHeld: "BLOCK_NOT_HELD",
    EngineHeld: "ENGINE_ATTACHED",
    Fenced: "STALE_EPOCH",
    IdReused: "ID_REUSED",
    LimitReached: "STATE_LIMIT",
    StepOutOfOrder: "STEP_ID",
}


def request_of(command: Command) -> Any:
    """The request of a command outside a session."""
    key: dict[str, Any] = {"engine": command.engine, "epoch": command.epoch}
    if isinstance(command, Renew):
        return pb.RenewLeaseRequest(**key)
    key["request_id"] = command.request_id
    if isinstance(command, Allocate):
        count, sequence_id = command.num_blocks, command.sequence_id
        return pb.AllocateRequest(**key, sequence_id=sequence_id, num_blocks=count)
    if isinstance(command, Free):
        return pb.FreeReturningCountRequest(**key, sequence_id=command.sequence_id)
    if isinstance(command, Attach):
        ttl = duration_of(command.ttl_ms / 1000) if command.ttl_ms else None
        return pb.AttachEngineRequest(**key, takeover=command.takeover, ttl=ttl)
    if isinstance(command, Detach):
        return pb.DetachEngineRequest(**key)
    if isinstance(command, Reclaim):
        return admin_pb2.ReclaimEngineRequest(**key, force=True)
    assert isinstance(command, Step)
    return pb.StepRequest(**key, step=_work_of(command))


def _work_of(step: Step) -> pb.EngineStep:
    return pb.EngineStep(
        free_sequence_ids=step.free_ids,
        allocate_sequence_ids=step.allocate_ids,
        allocate_num_blocks=step.num_blocks,
        policy=pb.StepPolicy.ValueType(step.policy.value),
        release_block_numbers=step.release,
        acquire_num_blocks=step.acquire,
        trim_sequence_ids=step.trim_ids,
        trim_head_blocks=step.trim_heads,
        trim_tail_blocks=step.trim_tails,
    )


def session_of(step: Step) -> list[pb.SessionRequest]:
    """What goes over the stream of one step."""
    attach = pb.SessionAttach(engine=step.engine, epoch=step.epoch)
    work = pb.SessionStep(step_id=step.step_id, step=_work_of(step))
    return [pb.SessionRequest(attach=attach), pb.SessionRequest(step=work)]


def outcome_of(answer: Any, expected: Outcome) -> Outcome:
    """What an answer says, in the core's words; what it does not say is taken as expected."""
    if isinstance(answer, pb.AllocateResponse):
        if answer.HasField("refused"):
            return _refused(answer.refused)
        return Granted(list(answer.granted.block_numbers), answer.granted.table_length)
    if isinstance(answer, pb.StepResponse | pb.SessionStepped):
        result = answer.result
        return Stepped(
            list(result.block_numbers),
            result.granted,
            _refused(result.refusal) if result.HasField("refusal") else None,
            list(result.freed_counts),
            result.free_blocks,
            list(result.acquired_block_numbers),
            list(result.trimmed_counts),
        )
    if isinstance(answer, pb.AttachEngineResponse):
        lease = answer.lease
        last_step_id = expected.last_step_id if isinstance(expected, Attached) else 0
        ttl_ms = lease.ttl.ToMilliseconds()
        held = (answer.held_blocks, answer.sequences, last_step_id, lease.resumed)
        return Attached(lease.epoch, ttl_ms, *held, answer.acquired_blocks)
    if isinstance(answer, pb.RenewLeaseResponse):
        return Renewed(answer.ttl.ToMilliseconds())
    if isinstance(answer, admin_pb2.ReclaimEngineResponse):
        return Freed(answer.reclaimed_blocks)
    return Freed(answer.freed_blocks)


def _refused(refusal: pb.Refusal) -> Refused:
    return Refused(RefusalReason(refusal.reason), refusal.free_blocks, refusal.needed)


def told_of(expected: Outcome) -> tuple[str, ...]:
    """The reason that an error has to have, and what it has to say of the block or the epoch."""
    reason = _REASONS[type(expected)]
    if isinstance(expected, BlockNotHeld):
        return reason, str(expected.block), expected.place
    return (reason, str(expected.current)) if isinstance(expected, Fenced) else (reason,)


def told_by(problem: Problem, expected: Outcome) -> tuple[str, ...]:
    """What it has and says."""
    told = problem.metadata
    if isinstance(expected, BlockNotHeld):
        return problem.reason, told.get("block_number", ""), told.get("place", "")
    if isinstance(expected, Fenced):
        return problem.reason, told.get("current", "")
    return (problem.reason,)
