"""Whether a driver on a client has answered what was to be answered.

Numbers of 64 bits may be texts, what is 0, empty or false may be left out, and one length of time
has several forms: answers are compared as the messages that they stand for.
"""

from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor

from kvblock.v1 import kvblock_pb2 as pb
from tests.conformance.bench import METHODS
from tests.conformance.cases import Json
from tests.conformance.steady import steady

_MESSAGES: dict[str, Descriptor] = {
    "attach": pb.SessionAttached.DESCRIPTOR,
    # Its fields are those that the answer to a step has.
    "step": pb.StepResponse.DESCRIPTOR,
    "recover": pb.StepResponse.DESCRIPTOR,
    "detach": pb.SessionDetached.DESCRIPTOR,
}
_TEXTS = ("bytes", "child")


def answered(line: Json, answer: Any) -> Any:
    """What a line was answered, in one form, without what differs from run to run."""
    return _pruned(steady(in_form(line, answer)))


def expected(line: Json, answer: Any) -> Any:
    """What a line is to be answered, in that form."""
    return _pruned(in_form(line, answer))


def part(whole: Any, some: Any) -> bool:
    """Whether an answer, in its form, has all that is said of it; empty is as good as left out."""
    if isinstance(some, dict):
        found = whole or {}
        return all(part(found.get(key), one) for key, one in some.items())
    if isinstance(some, list) and isinstance(whole, list):
        return len(some) == len(whole) and all(map(part, whole, some))
    return bool((whole or None) == (some or None))


def check_error(expected: Json, error: Json) -> None:
    """Compare what is said of an error."""
    for key, value in expected.items():
        if key == "retry":
            assert 0 < error.get("retry_after", 0) <= value + 0.001, error
        elif key == "hides":
            assert value not in str(error), error
        else:
            if key == "code" and error["kind"] == "deadline":
                continue  # The client's own deadline has no code.
            alternatives = value if key in ("kind", "code") and isinstance(value, list) else [value]
            assert (error.get(key) or None) in [one or None for one in alternatives], (key, error)


def in_form(line: Json, answer: Any) -> Any:
    """An answer in one form."""
    described = _MESSAGES.get(line["do"])
    if line["do"] == "call":
        described = METHODS[line["method"]].output_type
    if described is None:
        return _numbers(answer or {})
    message = message_factory.GetMessageClass(described)()
    json_format.ParseDict(answer or {}, message)
    return _numbers(json_format.MessageToDict(message, preserving_proto_field_name=True))


def _numbers(value: Any, name: str = "") -> Any:
    """Numbers of 64 bits as numbers."""
    if isinstance(value, dict):
        return {key: _numbers(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one, name) for one in value]
    is_number = isinstance(value, str) and value.isdecimal() and name not in _TEXTS
    return int(value) if is_number else value


def _pruned(value: Any) -> Any:
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    if not isinstance(value, dict):
        return value
    rows = {key: _pruned(one) for key, one in value.items()}
    return {key: one for key, one in rows.items() if one or one == [{}]}
