"""What the drivers on the clients are asked: lines, with what has to be answered.

A line is one of CLIENTS.md, with besides

    ok          what it is answered, without what changes from run to run
    has         some of what it is answered
    error       what it fails with: what is said of it has to be so; `kind` and `code` may be lists,
                and `retry` (seconds) is the most that retry-after may be; it says nothing of what
                it `hides`
    until       whether it is asked again until it is answered so
    meanwhile   what the world does once the line was sent, before its answer is read

Vectors for stubs become lines here, if a client can be made to send what they have. That follows
from their messages: a client counts its steps by itself, renews by a call of its own, attaches once
and detaches last; its arguments hold no enum value that the contract does not have, no time below
zero or beyond 292 years (64 bits of nanoseconds), and no trace context that is none.
"""

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import duration_pb2, json_format, message_factory
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from kvblock.v1 import kvblock_pb2 as pb
from tests.conformance.bench import METHODS, SERVICES
from tests.conformance.cases import CASES, Case, Expected, Json

EXPECTED = ("ok", "has", "error", "until", "meanwhile")
_NANOSECONDS_MAX = 2**63 - 1
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def unary() -> Iterator[tuple[Case, list[Json]]]:
    """The calls of KVBlockService, each by the one line that makes it."""
    for case in CASES:
        method = METHODS[case.method]
        if method.containing_service is not SERVICES[0] or method.client_streaming:
            continue
        request = message_factory.GetMessageClass(method.input_type)()
        json_format.ParseDict(_without_epochs(case.request or {}), request)
        if _writable(request):
            line = {"do": "call", "on": "c", "method": case.method, "request": case.request}
            yield case, [line | _expected(case.answer, case.error)]


def sessions() -> Iterator[tuple[Case, list[Json]]]:
    """The sessions that a client can have."""
    for case in CASES:
        if case.method == "Session" and not case.signal and not case.replaced:
            messages = [
                json_format.ParseDict(_without_epochs(one), pb.SessionRequest())
                for one in case.sent()
            ]
            if messages and _sendable(messages):
                yield case, list(_as_lines(case))


def _sendable(messages: list[pb.SessionRequest]) -> bool:
    kinds = [one.WhichOneof("message") for one in messages]
    steps = [one.step for one in messages if one.WhichOneof("message") == "step"]
    middle = kinds[1:-1] if kinds[-1] == "detach" else kinds[1:]
    return (
        kinds[0] == "attach"
        and not messages[0].attach.recall
        and set(middle) <= {"step"}
        and [one.step_id for one in steps] == [*range(1, len(steps) + 1)]
        and all(_TRACEPARENT.fullmatch(one.traceparent or _SOME) for one in steps)
        and all(map(_writable, messages))
    )


_SOME = f"00-{'1' * 32}-{'1' * 16}-01"


def _as_lines(case: Case) -> Iterator[Json]:
    messages, answers = case.sent(), case.awaited()
    for row, message in enumerate(messages):
        ((kind, content),) = message.items()
        line: Json = {"do": kind, "on": "s"}
        if kind == "attach":
            line |= {"on": "c", "as": "s", "request": content}
        if kind == "step":
            line |= {key: one for key, one in content.items() if key != "step_id"}
        if row < len(answers):
            ((_, answer),) = answers[row].items()
            answer = {key: one for key, one in answer.items() if key != "step_id"}
            yield line | {"ok": answer}
        else:
            yield line | _expected(None, case.error)


def _expected(answer: Json | None, error: Expected) -> Json:
    if error.code == "OK":
        return {"ok": answer}
    told: Json = {
        # What becomes of a lease is an error of its own in some languages.
        "kind": ["server", "lease_lost"] if error.reason == "STALE_EPOCH" else "server",
        "code": error.code,
        "reason": error.reason,
        "metadata": error.metadata,
        "violations": error.violations,
        "then": error.then,
        "fate_unknown": False,
    }
    if error.retry is not None:
        told["retry"] = error.retry
    return {"error": told}


def _without_epochs(value: Any) -> Any:
    """A message with some number in place of each `$engine`."""
    if isinstance(value, dict):
        return {key: _without_epochs(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_epochs(one) for one in value]
    return "1" if isinstance(value, str) and value.startswith("$") else value


def _writable(message: Message) -> bool:
    """Whether the arguments of a client can hold what a message has."""
    if isinstance(message, duration_pb2.Duration):
        return 0 <= message.ToNanoseconds() <= _NANOSECONDS_MAX
    for field, value in message.ListFields():
        values = [value] if not field.is_repeated else value
        for one in values:
            if isinstance(one, Message) and not _writable(one):
                return False
            enum: EnumDescriptor | None = field.enum_type
            if enum is not None and one not in enum.values_by_number:
                return False
    return True
