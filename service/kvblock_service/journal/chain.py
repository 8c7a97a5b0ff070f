"""The chain checksum: one number for all records of a journal up to a position, and their order.

Rules:
- That of a position follows from that of the position before and the record, and from nothing else:
  not from segments.
- It begins with the server epoch, so that no file of another epoch fits.
- It is a CRC-32 over the CRC-32 that each record ends with, which stands for all of it. One that
  took in bytes before that one would say nothing of these: bytes and their own CRC-32 cancel out.
- Segments of version 1 have the last 8 bytes of each record in it, and are read so.
"""

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from zlib import crc32

CHAIN_BYTES = 4
DIGEST_BYTES = 8
_NUMBER = Struct("<I")
_LAST_BYTES = {1: 8, 2: 4}
"""How much of a record is in the checksum, by the version of its segment."""


def beginning(server_epoch: int) -> bytes:
    """The checksum before the first record of an epoch."""
    return crc32(b"epoch %d" % server_epoch).to_bytes(CHAIN_BYTES, "little")


def followed(chain: bytes, records: Iterable[bytes], version: int = 2) -> bytes:
    """The checksum after these records of a segment, where `chain` is the one before them."""
    (number,) = _NUMBER.unpack(chain)
    start = -_LAST_BYTES[version]
    for record in records:
        number = crc32(record[start:], number)
    return _NUMBER.pack(number)


def digest(data: bytes) -> bytes:
    """A checksum of DIGEST_BYTES over a file."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
