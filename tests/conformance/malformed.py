"""Vectors that no stub can make: their messages are bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvblock.v1 import kvblock_pb2 as pb
from tests.conformance.bench import MESSAGE_BYTES_MAX, METHODS
from tests.conformance.cases import Expected

# Field 1 with wire type 2, as long as the rest says.
NAME = b"\x0a"
UNKNOWN = b"\x82\x7d"


def padding(size: int) -> bytes:
    """So many bytes that every message takes for a field it does not know."""
    length = size - len(UNKNOWN) - 2
    return UNKNOWN + bytes([length & 127 | 128, length >> 7]) + bytes(length)


def malformed(method: str) -> Expected:
    name = METHODS[method].input_type.full_name
    return Expected("INVALID_ARGUMENT", "MALFORMED_MESSAGE", {"message_type": name})


def too_long(size: int) -> Expected:
    metadata = {
        "field": "request",
        "value": str(size),
        "limit": "message_bytes_max",
        "max": str(MESSAGE_BYTES_MAX),
    }
    return Expected("INVALID_ARGUMENT", "REQUEST_LIMIT", metadata, ["request"])


@dataclass(frozen=True)
class Bytes:
    """Messages as bytes, and the status that has to come of the last one."""

    name: str
    method: str
    messages: tuple[bytes, ...]
    error: Expected


def of_every_method() -> Iterator[Bytes]:
    beyond = MESSAGE_BYTES_MAX + 1
    limit = 4 * MESSAGE_BYTES_MAX
    for method in METHODS:
        for name, data in [
            ("a field that ends too early", NAME + b"\x05ab"),
            ("a length that never ends", NAME + b"\xff" * 11),
            ("a tag of field zero", b"\x00"),
            ("a group that is never opened", b"\x0c"),
            ("an unknown wire type", b"\x0f"),
        ]:
            yield Bytes(f"{method}: {name}", method, (data,), malformed(method))
        yield Bytes(f"{method}: a byte too long", method, (padding(beyond),), too_long(beyond))
        yield Bytes(f"{method}: four times as long", method, (padding(limit),), too_long(limit))
        yield Bytes(
            f"{method}: more than gRPC reads",
            method,
            (padding(limit + 1),),
            Expected("RESOURCE_EXHAUSTED"),
        )
        if "pool" in METHODS[method].input_type.fields_by_name:
            bad_name = NAME + b"\x02\xff\xfe"
            yield Bytes(f"{method}: a name of wild bytes", method, (bad_name,), malformed(method))


ATTACH = pb.SessionRequest(attach=pb.SessionAttach()).SerializeToString()
STEP = pb.SessionRequest(step=pb.SessionStep(step_id=1, step=pb.EngineStep())).SerializeToString()
BYTES = [
    *of_every_method(),
    Bytes("a wild message in a session", "Session", (ATTACH, b"\x00"), malformed("Session")),
    Bytes(
        "a message in a session that is too long",
        "Session",
        (ATTACH, STEP + padding(MESSAGE_BYTES_MAX)),
        too_long(MESSAGE_BYTES_MAX + len(STEP)),
    ),
    Bytes(
        "wild bytes in the attach",
        "Session",
        (b"\x0a\x04\x0a\x02\xff\xfe",),
        malformed("Session"),
    ),
]
