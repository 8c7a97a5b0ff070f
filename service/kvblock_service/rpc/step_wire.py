"""A session's step, read from its request and written into its answer without message classes.

Rules:
- What is written here is, byte for byte, what protobuf writes for the same message.
- What is read here is only the form in which protobuf writes it: the known fields once each, in
  order, packed. For any other bytes, valid or not, the answer is None, and protobuf has to read
  them.
- Why: a step in a session is the one message that an engine waits for in every iteration, and in
  a process that was just woken up each object and function that a message class touches costs
  several times what it does in a loop.
"""

import sys
from array import array
from typing import NamedTuple

from kvblock_service.core.recall import Hints

_NATIVE = sys.byteorder == "little"
# Keys: field number times 8 plus the wire type (0: varint, 2: length-delimited).
_ONE_VARINT, _TWO_VARINT, _THREE_VARINT, _FOUR_VARINT, _FIVE_VARINT = 0x08, 0x10, 0x18, 0x20, 0x28
_ONE_BYTES, _TWO_BYTES, _THREE_BYTES, _FOUR_BYTES = 0x0A, 0x12, 0x1A, 0x22
_FIVE_BYTES, _SIX_BYTES, _SEVEN_BYTES, _EIGHT_BYTES, _NINE_BYTES = 0x2A, 0x32, 0x3A, 0x42, 0x4A
_SIX_VARINT = 0x30
_EMPTY: list[int] = []
_NOTHING = (_EMPTY, 0, _EMPTY, _EMPTY, _EMPTY)
_INT32_LIMIT, _UINT32_LIMIT = 1 << 31, 1 << 32
_ONE_WORD = b"\x01\x00\x00\x00"
_SMALL = [bytes((value,)) for value in range(128)]


class StepColumns(NamedTuple):
    """A SessionStep; `policy` is the StepPolicy's number, `hints` None where it has none.

    `release` are block numbers, `acquire` is how many blocks; `trim_heads` and `trim_tails` run
    parallel to `trim`.
    """

    step_id: int
    free: list[int]
    allocate: list[int]
    num_blocks: list[int]
    policy: int
    traceparent: str
    release: list[int] = _EMPTY
    acquire: int = 0
    trim: list[int] = _EMPTY
    trim_heads: list[int] = _EMPTY
    trim_tails: list[int] = _EMPTY
    hints: Hints | None = None


def write_stepped(
    step_id: int,
    block_numbers: list[int],
    granted: int,
    refusal: bytes,
    freed_counts: list[int],
    free_blocks: int,
    acquired: list[int] = _EMPTY,
    trimmed_counts: list[int] = _EMPTY,
    owed_blocks: int = 0,
) -> bytes:
    """A SessionResponse with what came of a step; no `refusal`: empty."""
    result = b""
    if block_numbers or granted:
        result = _column(_ONE_BYTES, "I", block_numbers) + _number(_TWO_VARINT, granted)
    if refusal:
        result += _SMALL[_THREE_BYTES] + _varint(len(refusal)) + refusal
    if freed_counts:
        result += _counts(freed_counts)
    result += _number(_FIVE_VARINT, free_blocks)
    if acquired:
        result += _column(_SIX_BYTES, "I", acquired)
    if trimmed_counts:
        result += _column(_SEVEN_BYTES, "I", trimmed_counts)
    stepped = _number(_ONE_VARINT, step_id) + _in_second(result)
    if owed_blocks:
        stepped += _number(_THREE_VARINT, owed_blocks)
    return _in_second(stepped)


def read_step(data: bytes) -> StepColumns | None:
    """The step in a SessionRequest; None: protobuf has to read it."""
    if not _NATIVE:
        return None
    try:
        step_id, at, end = _begin(data)
        if at < end and data[at] == _FIVE_BYTES:
            # An engine that keeps its own tables.
            free = allocate = num_blocks = _EMPTY
            policy = 0
        else:
            free, at = _read_column(data, at, end, _ONE_BYTES, "Q")
            allocate, at = _read_column(data, at, end, _TWO_BYTES, "Q")
            num_blocks, at = _read_column(data, at, end, _THREE_BYTES, "I")
            policy, at = _read_number(data, at, end, _FOUR_VARINT)
        more = _NOTHING if at == end else _read_by_number(data, at, end)
        if end == len(data):
            return StepColumns(step_id, free, allocate, num_blocks, policy, "", *more)
        traceparent, at = _read_text(data, end, _THREE_BYTES)
        hints = None if at == len(data) else _read_last_hints(data, at, _FOUR_BYTES)
    except (_NotPlain, IndexError, ValueError):
        return None
    return StepColumns(step_id, free, allocate, num_blocks, policy, traceparent, *more, hints)


class _NotPlain(Exception):
    """The bytes are not in the form that is read here."""


def _begin(data: bytes) -> tuple[int, int, int]:
    """Enter a step's two outer messages; gives the step_id and where its work begins and ends.

    The outer one reaches to the end of the bytes.
    """
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
    end = at + size
    if end > len(data):
        raise _NotPlain
    return step_id, at, end


def _read_by_number(
    data: bytes, at: int, end: int
) -> tuple[list[int], int, list[int], list[int], list[int]]:
    """The fields of a step that fewer steps have; they reach to the end."""
    release, at = _read_column(data, at, end, _FIVE_BYTES, "I")
    acquire, at = _read_number(data, at, end, _SIX_VARINT)
    if at == end:
        return release, acquire, _EMPTY, _EMPTY, _EMPTY
    trim, at = _read_column(data, at, end, _SEVEN_BYTES, "Q")
    trim_heads, at = _read_column(data, at, end, _EIGHT_BYTES, "I")
    trim_tails, at = _read_column(data, at, end, _NINE_BYTES, "I")
    if at != end:
        raise _NotPlain
    return release, acquire, trim, trim_heads, trim_tails


def _read_column(data: bytes, at: int, end: int, key: int, width: str) -> tuple[list[int], int]:
    if at >= end or data[at] != key:
        return [], at
    size, at = _read_varint(data, at + 1)
    after = at + size
    if not size or after > end:
        raise _NotPlain
    words: array[int] = array(width, data[at:after])
    return words.tolist(), after


def _read_number(
    data: bytes, at: int, end: int, key: int, limit: int = _INT32_LIMIT
) -> tuple[int, int]:
    """A number below a limit, an enum's as a rule: a negative one is not read, zero not written."""
    if at >= end or data[at] != key:
        return 0, at
    value, at = _read_varint(data, at + 1)
    if not 0 < value < limit:
        raise _NotPlain
    return value, at


def _read_text(data: bytes, at: int, key: int) -> tuple[str, int]:
    """A text; an empty one is not written, and only ASCII is read."""
    if data[at] != key:
        return "", at
    size, at = _read_varint(data, at + 1)
    end = at + size
    if not size or end > len(data):
        raise _NotPlain
    return data[at:end].decode("ascii"), end


def _read_last_hints(data: bytes, at: int, key: int) -> Hints:
    """A message of hints that reaches to the end."""
    if data[at] != key:
        raise _NotPlain
    size, at = _read_varint(data, at + 1)
    end = at + size
    if end != len(data):
        raise _NotPlain
    want, at = _read_number(data, at, end, _ONE_VARINT, 1 << 63)
    idle, at = _read_number(data, at, end, _TWO_VARINT, _UINT32_LIMIT)
    if at != end:
        raise _NotPlain
    return Hints(want, idle)


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


def _counts(freed_counts: list[int]) -> bytes:
    count = len(freed_counts)
    if freed_counts.count(1) != count:
        return _column(_FOUR_BYTES, "I", freed_counts)
    # Sequences of one block are freed most: to count them costs less than to convert them.
    return _SMALL[_FOUR_BYTES] + _varint(4 * count) + _ONE_WORD * count


def _column(key: int, width: str, column: list[int]) -> bytes:
    if not column:
        return b""
    words = array(width)
    words.fromlist(column)
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
