"""The step messages of a session, read and written without the message classes.

Rules:
- What is written here is, byte for byte, what protobuf writes for the same message.
- What is read here is only that form: the known fields once each, in order, packed. `read_...`
  answers None for any other bytes, valid or not, and protobuf has to read those.
- Why: a step in a session is the one message that an engine waits for in every iteration, and in
  a process that was just woken up each object and function that a message class touches costs
  several times what it does in a loop.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import NamedTuple, SupportsIndex

_NATIVE = sys.byteorder == "little"
# Keys: field number times 8 plus the wire type (0: varint, 2: length-delimited).
_ONE_VARINT, _TWO_VARINT, _FOUR_VARINT, _FIVE_VARINT = 0x08, 0x10, 0x20, 0x28
_ONE_BYTES, _TWO_BYTES, _THREE_BYTES, _FOUR_BYTES = 0x0A, 0x12, 0x1A, 0x22
_UINT32_LIMIT = 1 << 32
_SMALL = [bytes((value,)) for value in range(128)]


class StepColumns(NamedTuple):
    """A SessionStep; `policy` is the StepPolicy's number."""

    step_id: int
    free: list[int]
    allocate: list[int]
    num_blocks: list[int]
    policy: int


class SteppedColumns(NamedTuple):
    """A SessionStepped; `refusal` is a written Refusal, empty when there is none."""

    step_id: int
    block_numbers: list[int]
    granted: int
    refusal: bytes
    freed_counts: list[int]
    free_blocks: int


def write_step(
    step_id: int,
    free: Iterable[SupportsIndex],
    allocate: Iterable[SupportsIndex],
    num_blocks: Iterable[SupportsIndex],
    policy: int,
) -> bytes:
    """A SessionRequest with a step.

    Raises:
        TypeError, OverflowError: an element is no whole number of its column's width.

    """
    step = (
        _column(_ONE_BYTES, "Q", free)
        + _column(_TWO_BYTES, "Q", allocate)
        + _column(_THREE_BYTES, "I", num_blocks)
        + _number(_FOUR_VARINT, policy)
    )
    return _in_second(_number(_ONE_VARINT, step_id) + _in_second(step))


def write_stepped(
    step_id: int,
    block_numbers: list[int],
    granted: int,
    refusal: bytes,
    freed_counts: list[int],
    free_blocks: int,
) -> bytes:
    """A SessionResponse with what came of a step; no `refusal`: empty."""
    result = _column(_ONE_BYTES, "I", block_numbers) + _number(_TWO_VARINT, granted)
    if refusal:
        result += _SMALL[_THREE_BYTES] + _varint(len(refusal)) + refusal
    result += _column(_FOUR_BYTES, "I", freed_counts) + _number(_FIVE_VARINT, free_blocks)
    return _in_second(_number(_ONE_VARINT, step_id) + _in_second(result))


def read_step(data: bytes) -> StepColumns | None:
    """The step in a SessionRequest; None: protobuf has to read it."""
    if not _NATIVE:
        return None
    try:
        step_id, at = _begin(data)
        view = memoryview(data)
        free, at = _read_column(data, view, at, _ONE_BYTES, "Q")
        allocate, at = _read_column(data, view, at, _TWO_BYTES, "Q")
        num_blocks, at = _read_column(data, view, at, _THREE_BYTES, "I")
        policy, at = _read_number(data, at, _FOUR_VARINT)
    except (_NotPlain, IndexError, TypeError):
        return None
    return StepColumns(step_id, free, allocate, num_blocks, policy) if at == len(data) else None


def read_stepped(data: bytes) -> SteppedColumns | None:
    """What came of a step, in a SessionResponse; None: protobuf has to read it."""
    if not _NATIVE:
        return None
    try:
        step_id, at = _begin(data)
        view = memoryview(data)
        blocks, at = _read_column(data, view, at, _ONE_BYTES, "I")
        granted, at = _read_number(data, at, _TWO_VARINT)
        refusal = b""
        if at < len(data) and data[at] == _THREE_BYTES:
            size, start = _read_varint(data, at + 1)
            at = start + size
            refusal = data[start:at]
            if not refusal or at > len(data):
                return None
        counts, at = _read_column(data, view, at, _FOUR_BYTES, "I")
        free_blocks, at = _read_number(data, at, _FIVE_VARINT)
    except (_NotPlain, IndexError, TypeError):
        return None
    if at != len(data):
        return None
    return SteppedColumns(step_id, blocks, granted, refusal, counts, free_blocks)


class _NotPlain(Exception):
    """The bytes are not in the form that is read here."""


def _begin(data: bytes) -> tuple[int, int]:
    """Enter a step's two outer messages, which reach to the end; gives the step_id and a place."""
    if data[0] != _TWO_BYTES:
        raise _NotPlain
    size, at = _read_varint(data, 1)
    if at + size != len(data):
        raise _NotPlain
    step_id = 0
    if data[at] == _ONE_VARINT:
        step_id, at = _read_varint(data, at + 1)
        if not step_id:
            raise _NotPlain
    if data[at] != _TWO_BYTES:
        raise _NotPlain
    size, at = _read_varint(data, at + 1)
    if at + size != len(data):
        raise _NotPlain
    return step_id, at


def _read_column(
    data: bytes, view: memoryview, at: int, key: int, width: str
) -> tuple[list[int], int]:
    if at >= len(data) or data[at] != key:
        return [], at
    size, at = _read_varint(data, at + 1)
    end = at + size
    if not size or end > len(data):
        raise _NotPlain
    return view[at:end].cast(width).tolist(), end  # type: ignore[call-overload]


def _read_number(data: bytes, at: int, key: int) -> tuple[int, int]:
    """A 32-bit varint field; zero is not written."""
    if at >= len(data) or data[at] != key:
        return 0, at
    value, at = _read_varint(data, at + 1)
    if not 0 < value < _UINT32_LIMIT:
        raise _NotPlain
    return value, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value = byte & 127
    for shift in range(7, 63, 7):
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            if not byte:
                raise _NotPlain
            return value, at + 1
    # Ten bytes: a number that needs its last bit, which no step_id or size will have.
    raise _NotPlain


def _column(key: int, width: str, column: Iterable[SupportsIndex]) -> bytes:
    words = array(width, column)  # type: ignore[type-var]
    if not words:
        return b""
    if not _NATIVE:
        words.byteswap()
    data = words.tobytes()
    return _SMALL[key] + _varint(len(data)) + data


def _number(key: int, value: int) -> bytes:
    return _SMALL[key] + _varint(value) if value else b""


def _in_second(message: bytes) -> bytes:
    """A message as the second field of another one."""
    return _SMALL[_TWO_BYTES] + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    parts = bytearray()
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
