"""Numbers, texts and bytes in bulk, one piece behind the other, as snapshots need them.

Rules:
- Who reads takes the same pieces in the same order as they were put; nothing names them.
- Numbers are little-endian; each piece begins with its count, so that a piece that is cut short is
  an error where it is taken.
"""

import struct
import sys
from array import array
from collections.abc import Iterable

from kvblock_service.journal.interface import CodecError

_COUNT = struct.Struct("<Q")
_BIG_ENDIAN = sys.byteorder == "big"


class Writer:
    """Collects pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def numbers(self, values: Iterable[int], typecode: str = "Q") -> None:
        """Numbers of one size: typecode Q has 64 bits, I has 32, all unsigned."""
        packed = values if isinstance(values, array) else array(typecode, values)
        assert packed.typecode == typecode, "an array of another type"
        if _BIG_ENDIAN:
            packed = array(typecode, packed)
            packed.byteswap()
        self._parts += (_COUNT.pack(len(packed)), packed.tobytes())

    def texts(self, values: Iterable[str]) -> None:
        """Texts, each of any length."""
        self.blobs([value.encode() for value in values])

    def blobs(self, values: list[bytes]) -> None:
        """Byte strings, each of any length."""
        self.numbers([len(value) for value in values], "I")
        self._parts.append(b"".join(values))

    def finish(self) -> bytes:
        """Everything that was put."""
        return b"".join(self._parts)


class Reader:
    """Takes pieces out of bytes.

    Raises:
        CodecError: from every method, when the bytes end before the piece does.

    """

    def __init__(self, data: "memoryview[int] | bytes") -> None:
        self._data = memoryview(data)
        self._at = 0

    def numbers(self, typecode: str = "Q") -> "array[int]":
        """What `Writer.numbers` put."""
        (count,) = _COUNT.unpack(self._take(_COUNT.size))
        values = array(typecode)
        values.frombytes(self._take(count * values.itemsize))
        if _BIG_ENDIAN:
            values.byteswap()
        return values

    def texts(self) -> list[str]:
        """What `Writer.texts` put."""
        return [str(blob, "utf-8") for blob in self.blobs()]

    def blobs(self) -> list[bytes]:
        """What `Writer.blobs` put."""
        return [bytes(self._take(length)) for length in self.numbers("I")]

    def end(self) -> None:
        """Raises CodecError unless nothing is left."""
        if self._at != len(self._data):
            raise CodecError(f"{len(self._data) - self._at} bytes are left over")

    def _take(self, size: int) -> "memoryview[int]":
        end = self._at + size
        if end > len(self._data):
            raise CodecError(f"ends {end - len(self._data)} bytes too early")
        piece = self._data[self._at : end]
        self._at = end
        return piece
