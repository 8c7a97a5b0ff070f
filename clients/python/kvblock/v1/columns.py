"""Columns of fixed-width numbers, as the wire has them.

Rules:
- A packed `repeated fixed32` or `fixed64` field is a key, a length in bytes and the numbers as
  little-endian words. Written in one piece here and merged into a message, a long column costs
  less than through the message's own `extend`, which looks at each number by itself.
- Knows the wire format of packed fields, and nothing of the contract's messages.
"""

import sys
from array import array
from collections.abc import Iterable
from typing import Final, Literal, SupportsIndex

FIXED32: Final = "I"
FIXED64: Final = "Q"

_LENGTH_DELIMITED = 2
_SWAPPED = sys.byteorder == "big"


def packed_field(number: int, width: Literal["I", "Q"], column: Iterable[SupportsIndex]) -> bytes:
    """The bytes of a packed field with this field number; none for an empty column.

    Raises:
        TypeError, OverflowError: an element is no whole number of that width.

    """
    words = array(width, column)  # type: ignore[arg-type]
    if not words:
        return b""
    if _SWAPPED:
        words.byteswap()
    key = number << 3 | _LENGTH_DELIMITED
    return b"".join((_varint(key), _varint(len(words) * words.itemsize), words))


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    return bytes((value & 127 | 128,)) + _varint(value >> 7)
