"""The chain checksum: one number for all records of a journal up to a position, and their order.

Rules:
- That of a position follows from that of the position before and the record, and from nothing else:
  not from segments.
- It begins with the server epoch, so that no file of another epoch fits.
- It is a CRC-32 over the last bytes of all records. A record ends with its own CRC-32, so these
  stand for all of it; a CRC-32 over all of it would be the same for every record of a length.
"""

from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

CHAIN_BYTES = 4
DIGEST_BYTES = 8
_LAST_BYTES = 8


def beginning(server_epoch: int) -> bytes:
    """The checksum before the first record of an epoch."""
    return crc32(b"epoch %d" % server_epoch).to_bytes(CHAIN_BYTES, "little")


def followed(chain: bytes, records: Iterable[bytes]) -> bytes:
    """The checksum after these records, where `chain` is the one before them."""
    number = int.from_bytes(chain, "little")
    for record in records:
        number = crc32(record[-_LAST_BYTES:], number)
    return number.to_bytes(CHAIN_BYTES, "little")


def digest(data: bytes) -> bytes:
    """A checksum of DIGEST_BYTES over a file."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
