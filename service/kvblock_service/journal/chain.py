"""The chain checksum: one number for all records of a journal up to a position, and their order.

Rules:
- That of a position follows from that of the position before and the record, and from nothing else:
  neither from segments nor from their formats.
- It begins with the server epoch, so that no file of another epoch fits.
- A record ends with its own CRC-32, so its length and its last bytes stand for all of it: to hash
  thousands of numbers once more would cost a large step several percent.
- It is a hash, not a CRC: behind such a record a CRC-32 is the same for every one of that length.
"""

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct

CHAIN_BYTES = 8
_LAST_BYTES = 64
_LENGTH = Struct("<Q")


def beginning(server_epoch: int) -> bytes:
    """The checksum before the first record of an epoch."""
    return blake2b(b"epoch %d" % server_epoch, digest_size=CHAIN_BYTES).digest()


def followed(chain: bytes, records: Iterable[bytes]) -> bytes:
    """The checksum after these records, where `chain` is the one before them."""
    for record in records:
        data = chain + _LENGTH.pack(len(record)) + record[-_LAST_BYTES:]
        chain = blake2b(data, digest_size=CHAIN_BYTES).digest()
    return chain


def digest(data: bytes) -> bytes:
    """A checksum of the same kind over a file."""
    return blake2b(data, digest_size=CHAIN_BYTES).digest()
