"""Between protobuf's JSON form and the arguments and values of the Python clients."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from google.protobuf import json_format
from google.protobuf.message import Message

import kvblock
from kvblock.v1 import kvblock_pb2 as pb

Json: TypeAlias = dict[str, Any]
TIMES = {"retry_after", "lease_expires_in", "ttl", "renew_after", "expires_in"}
KINDS: tuple[tuple[type[kvblock.KVBlockError], str], ...] = (
    (kvblock.LeaseLostError, "lease_lost"),
    (kvblock.UnansweredError, "unanswered"),
    (kvblock.ClosedError, "closed"),
    (kvblock.UsageError, "usage"),
    (kvblock.DeadlineExceededError, "deadline"),
)


class Unary(NamedTuple):
    """How the client makes one call, by its request; what it answers is awaited by the caller.

    `fenced_by_client`: the epoch is that of a client, and no argument.
    """

    request: type[Message]
    carry_out: Callable[[Any, Any, float | None], Any]
    fenced_by_client: bool = True


def shown(value: Any, name: str = "") -> Any:
    """A value of the client in protobuf's JSON form."""
    if is_dataclass(value):
        rows = ((one.name, getattr(value, one.name)) for one in fields(value))
        return {key: shown(one, key) for key, one in rows if one is not None}
    if isinstance(value, kvblock.RefusalReason):
        return f"REFUSAL_REASON_{value.name}"
    if isinstance(value, Enum):
        return value.name
    if name == "refusals":
        return [{"reason": shown(reason), "count": count} for reason, count in value.items()]
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return f"{value:.9f}s" if name in TIMES else value


def error(failure: kvblock.KVBlockError) -> Json:
    """An error of the client."""
    kind = next((name for kind, name in KINDS if isinstance(failure, kind)), "server")
    if failure.code is None:
        # Nothing was sent: the client has found it out by itself.
        kind = "usage" if kind == "server" else kind
        return {"kind": kind, "message": str(failure)}
    return {
        "kind": kind,
        "code": failure.code.name,
        "reason": None if failure.reason is None else failure.reason.name,
        "metadata": failure.metadata,
        "violations": [one.field for one in failure.violations],
        "retry_after": failure.retry_after,
        "then": failure.then.value,
        "fate_unknown": failure.fate_unknown,
        "message": str(failure),
    }


def seconds(message: Message, field: str) -> float | None:
    """A duration of a request, None without one."""
    return getattr(message, field).ToNanoseconds() / 1e9 if message.HasField(field) else None


def attach(request: pb.SessionAttach | pb.AttachEngineRequest) -> Json:
    """The arguments of an attach."""
    expect = None
    if request.HasField("expect"):
        given = {one.name: number for one, number in request.expect.ListFields()}
        expect = kvblock.Expect(**given)
    return {
        "pool": request.pool or None,
        "engine": request.engine or None,
        "ttl": seconds(request, "ttl"),
        "takeover": request.takeover,
        "epoch": request.epoch,
        "expect": expect,
    }


def attached(session: Any) -> Json:
    """What an attach has told."""
    told: Json = shown(session._attachment)
    return told


def step(columns: pb.EngineStep) -> Json:
    """The arguments of a step."""
    policy = kvblock.StepPolicy(columns.policy or kvblock.StepPolicy.ALL_OR_NOTHING.value)
    return {
        "free": columns.free_sequence_ids,
        "allocate": columns.allocate_sequence_ids,
        "num_blocks": columns.allocate_num_blocks,
        "policy": policy,
        "release": columns.release_block_numbers,
        "acquire": columns.acquire_num_blocks,
        "trim": columns.trim_sequence_ids,
        "trim_head": columns.trim_head_blocks,
        "trim_tail": columns.trim_tail_blocks,
    }


def hints(request: Message) -> kvblock.EngineHints | None:
    """The hints of a request, None without any."""
    if not request.HasField("hints"):
        return None
    given: Any = request
    return kvblock.EngineHints(given.hints.want_blocks, given.hints.idle_blocks)


def stepped(result: kvblock.StepResult) -> Json:
    """What came of a step."""
    told = shown(result)
    return {"owed_blocks": told.pop("owed_blocks"), "result": told}


def _where(request: Any, timeout: float | None) -> Json:
    # Where a call names none, the client's are meant.
    return {"pool": request.pool or None, "engine": request.engine or None, "timeout": timeout}


def _change(request: Any, timeout: float | None) -> Json:
    return {**_where(request, timeout), "request_id": request.request_id or None}


def _count(request: Any) -> Json:
    return {"num_blocks": request.num_blocks} if request.HasField("num_blocks") else {}


async def awaited(answer: Any) -> Any:
    """What a call of either client answers."""
    return await answer if inspect.isawaitable(answer) else answer


async def _allocate(client: Any, request: pb.AllocateRequest, timeout: float | None) -> Json:
    wait = {"max_wait": seconds(request, "max_wait")}
    more = {**_count(request), **wait, **_change(request, timeout)}
    answer = await awaited(client.allocate(request.sequence_id, **more))
    return {"granted" if isinstance(answer, kvblock.Granted) else "refused": shown(answer)}


async def _free(client: Any, request: pb.FreeRequest, timeout: float | None) -> Json:
    await awaited(client.free(request.sequence_id, **_change(request, timeout)))
    return {}


async def _free_returning_count(client: Any, request: Any, timeout: float | None) -> Json:
    given = _change(request, timeout)
    freed = await awaited(client.free_returning_count(request.sequence_id, **given))
    return {"freed_blocks": freed}


async def _get_block_table(client: Any, request: Any, timeout: float | None) -> Json:
    given = _where(request, timeout)
    answer: Json = shown(await awaited(client.get_block_table(request.sequence_id, **given)))
    return answer


async def _can_allocate(client: Any, request: Any, timeout: float | None) -> Json:
    given = {**_count(request), **_where(request, timeout)}
    answer: Json = shown(await awaited(client.can_allocate(**given)))
    return answer


async def _stats(client: Any, request: pb.StatsRequest, timeout: float | None) -> Json:
    narrow = {"pool": request.pool or None, "engine": request.engine or None}
    answer: Json = shown(await awaited(client.stats(**narrow, timeout=timeout)))
    return answer


async def _step(client: Any, request: pb.StepRequest, timeout: float | None) -> Json:
    given = {**step(request.step), "hints": hints(request), **_change(request, timeout)}
    return stepped(await awaited(client.step(**given)))


async def _attach_engine(client: Any, request: Any, timeout: float | None) -> Json:
    more = {"request_id": request.request_id or None, "timeout": timeout}
    lease = await awaited(client.attach_engine(**attach(request), **more))
    told = attached(lease)
    # The lease stays; the line's next ones name its epoch.
    await awaited(lease.close())
    known = pb.AttachEngineResponse.DESCRIPTOR.fields_by_name
    return {key: value for key, value in told.items() if key in known}


async def _of_lease(client: Any, request: Any, timeout: float | None) -> Json:
    """A renewal or a detach.

    The clients have them as methods of a lease, which knows its epoch; here they are made as these
    methods make them.
    """
    connection = client._connection
    renews = isinstance(request, pb.RenewLeaseRequest)
    name = "RenewLease" if renews else "DetachEngine"
    method = getattr(connection.stubs.service, name)
    answer = await awaited(connection.call(method, request, client._settings.deadline(timeout)))
    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


UNARY = {
    "Allocate": Unary(pb.AllocateRequest, _allocate),
    "Free": Unary(pb.FreeRequest, _free),
    "FreeReturningCount": Unary(pb.FreeReturningCountRequest, _free_returning_count),
    "GetBlockTable": Unary(pb.GetBlockTableRequest, _get_block_table),
    "CanAllocate": Unary(pb.CanAllocateRequest, _can_allocate),
    "Stats": Unary(pb.StatsRequest, _stats),
    "Step": Unary(pb.StepRequest, _step),
    "AttachEngine": Unary(pb.AttachEngineRequest, _attach_engine, fenced_by_client=False),
    "RenewLease": Unary(pb.RenewLeaseRequest, _of_lease, fenced_by_client=False),
    "DetachEngine": Unary(pb.DetachEngineRequest, _of_lease, fenced_by_client=False),
}
