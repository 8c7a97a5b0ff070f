"""What an engine was built for, to be compared with its pool at the attach.

Rules:
- A field that is None is not compared; the server compares the others, and refuses the attach with
  GEOMETRY_MISMATCH before anything is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsIndex

from kvblock import arguments
from kvblock.v1 import kvblock_pb2 as pb


@dataclass(frozen=True, slots=True)
class Expect:
    """What an engine needs its pool to be: see the clients' `session`."""

    block_size: SupportsIndex | None = None
    """Token slots per block."""
    block_bytes: SupportsIndex | None = None
    """Bytes of one block. A pool that does not tell them has 0."""
    regions: SupportsIndex | None = None
    """Arrays that the pool's memory is divided into."""
    layout: str | None = None
    """How the bytes of a block are arranged: at most 256 printable characters."""


def fill(message: pb.ExpectedGeometry, expect: Expect) -> None:
    """Write what is expected into an empty message.

    Raises:
        InvalidArgumentError: it is no Expect, or has a field that cannot be written.

    """
    if not isinstance(expect, Expect):
        raise arguments.invalid("expect", expect, "must be an Expect")
    # Also one that compares nothing is there.
    message.SetInParent()
    for name, maximum in _NUMBERS.items():
        number = getattr(expect, name)
        if number is not None:
            setattr(message, name, arguments.whole_number(f"expect.{name}", number, maximum))
    if expect.layout is not None:
        message.layout = arguments.name("expect.layout", expect.layout)


_NUMBERS = {
    "block_size": arguments.UINT32_MAX,
    "block_bytes": arguments.UINT64_MAX,
    "regions": arguments.UINT32_MAX,
}
