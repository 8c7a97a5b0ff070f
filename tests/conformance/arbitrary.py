"""Requests with anything in their fields, and bytes that are nearly requests, for Hypothesis."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.conformance.bench import METHODS


def messages_of(method: str) -> st.SearchStrategy[Message]:
    """Messages of a method's request type with anything in their fields."""
    return message_of(GetMessageClass(METHODS[method].input_type))


def message_of(message_class: type[Message]) -> st.SearchStrategy[Message]:
    fields = {field.name: values_of(field) for field in message_class.DESCRIPTOR.fields}
    # Of a oneof the last field that is set stays.
    return st.fixed_dictionaries({}, optional=fields).map(lambda found: message_class(**found))


UINT32 = st.sampled_from([0, 1, 2, 9, 64, 65, 2**32 - 1]) | st.integers(0, 2**32 - 1)
UINT64 = st.sampled_from([0, 1, 2, 2**64 - 1]) | st.integers(0, 2**64 - 1)
NAMES = st.sampled_from(["", "main", "side", "other", "a", "a b", "x" * 129]) | st.text(max_size=8)
VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: NAMES,
    FieldDescriptor.TYPE_UINT32: UINT32,
    FieldDescriptor.TYPE_FIXED32: UINT32,
    FieldDescriptor.TYPE_UINT64: UINT64,
    FieldDescriptor.TYPE_FIXED64: UINT64,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 4),
    # These two are the fields of a Duration; what waits shall not wait long.
    FieldDescriptor.TYPE_INT64: st.sampled_from([-(2**63), -1, 0, 61, 2**63 - 1]),
    FieldDescriptor.TYPE_INT32: st.sampled_from([-(2**31), -1, 0, 1_000_000, 10**9, 2**31 - 1]),
}


def values_of(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        value: st.SearchStrategy[Any] = message_of(GetMessageClass(field.message_type))
    else:
        value = VALUES[field.type]
    return st.lists(value, max_size=10) if field.is_repeated else value


def bytes_of(method: str) -> st.SearchStrategy[bytes]:
    """Any bytes, and messages with and without a few bytes that are wrong."""

    def damaged(data: bytes, cut: int, rest: bytes) -> bytes:
        return data[: max(0, len(data) - cut)] + rest

    whole = messages_of(method).map(lambda message: message.SerializeToString())
    torn = st.builds(damaged, whole, st.integers(0, 8), st.binary(max_size=8))
    return whole | torn | st.binary(max_size=64)
