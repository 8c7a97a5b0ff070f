"""Random HTTP/2: frames of every kind, whole and broken, around calls that are nearly right.

Rules:
- Everything is drawn from one generator, so that a seed gives the same bytes again.
"""

import struct
from random import Random

import h2.config
import h2.connection
import h2.exceptions
import hpack

from tests.conformance.bench import METHODS, path_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS = (0, 1, 2, 3, 5, 7, 2**31 - 1)
EXTREMES = (0, 1, 2**16, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame; `length`: what its header says, if that is not the truth."""
    size = len(payload) if length is None else length
    head = struct.pack(">I", size & 0xFFFFFF)[1:] + bytes([kind & 255, flags & 255])
    return head + struct.pack(">I", stream & 0xFFFFFFFF) + payload


def conversation(random: Random) -> bytes:
    """What one client sends: a beginning, mostly right, then some frames."""
    if random.random() < 0.5:
        # A wrong frame ends a connection: what is open when it comes has to be opened rightly.
        out = bytearray(nearly_right_call(random))
    else:
        out = bytearray(PREFACE if random.random() < 0.9 else random.randbytes(24))
        out += frame(SETTINGS, 0, 0, b"")
    encoder = hpack.Encoder()
    for _ in range(random.randint(1, 12)):
        out += any_frame(random, encoder)
    if random.random() < 0.2:
        for _ in range(random.randint(1, 4)):
            out[random.randrange(len(out))] = random.randrange(256)
    return bytes(out)


def any_frame(random: Random, encoder: hpack.Encoder) -> bytes:
    """One frame of any kind."""
    kind = random.choice((*range(10), random.randrange(256)))
    stream = random.choice(STREAMS)
    flags = random.choice((0, 1, 4, 5, 8, 0x20, 0x25, random.randrange(256)))
    if kind == HEADERS and random.random() < 0.8:
        payload = encoder.encode(headers(random))
        flags = random.choice((4, 5, 4, 0))
    elif kind == DATA:
        payload = message(random)
    elif kind in (WINDOW, RST_STREAM):
        payload = struct.pack(">I", random.choice(EXTREMES))
    elif kind == SETTINGS:
        pairs = [(random.randrange(8), random.choice(EXTREMES)) for _ in range(random.randrange(5))]
        payload = b"".join(struct.pack(">HI", *pair) for pair in pairs)
    elif kind == PING:
        payload = random.randbytes(8)
    else:
        payload = random.randbytes(random.choice((0, 1, 4, 8, 17, 64)))
    lies = random.random() < 0.1
    return frame(kind, flags, stream, payload, random.choice(EXTREMES) if lies else None)


def headers(random: Random) -> list[tuple[bytes, bytes]]:
    """Headers of a call, some missing, twice, or not what they should be."""
    path = f"/{path_of(random.choice(list(METHODS)))}".encode()
    found = [
        (b":method", random.choice((b"POST", b"POST", b"GET", b""))),
        (b":scheme", random.choice((b"http", b"https", b"x"))),
        (b":path", random.choice((path, path, path, b"/", b"", b"/" + b"x" * 300, b"/\xff"))),
        (b":authority", random.choice((b"localhost", b"", b"\x00", b"\xff"))),
        (
            b"content-type",
            random.choice((b"application/grpc", b"text/html", b"application/grpc+x")),
        ),
        (b"te", b"trailers"),
        (b"grpc-timeout", random.choice((b"1S", b"0n", b"99999999H", b"-1S", b"x", b"\xff"))),
        (b"grpc-encoding", random.choice((b"identity", b"gzip", b"deflate", b"x"))),
        (b"authorization", random.choice((b"Bearer x", b"Bearer \xff", b""))),
    ]
    if random.random() < 0.3:
        random.shuffle(found)
    if random.random() < 0.3:
        found.append(random.choice(found))
    return [pair for pair in found if random.random() < 0.95]


def message(random: Random) -> bytes:
    """A gRPC message with any prefix."""
    body = random.randbytes(random.choice((0, 1, 5, 40, 200)))
    size = len(body) if random.random() < 0.6 else random.choice(EXTREMES)
    return struct.pack(">BI", random.choice((0, 0, 1, 255)), size) + body


def nearly_right_call(random: Random) -> bytes:
    """A call as a correct client opens it, with messages that are not correct."""
    connection = client()
    for _ in range(random.randint(1, 5)):
        stream = connection.get_next_available_stream_id()
        method = random.choice([name for name in METHODS if name != "Drain"])
        connection.send_headers(stream, call(f"/{path_of(method)}".encode()))
        for _ in range(random.randint(0, 3)):
            connection.send_data(stream, message(random), end_stream=False)
        ending = random.random()
        if ending < 0.4:
            connection.end_stream(stream)
        elif ending < 0.7:
            connection.reset_stream(stream, random.choice((0, 2, 8)))
    return connection.data_to_send()


def client() -> h2.connection.H2Connection:
    """A correct client's side of a connection, which sends whatever headers it is given."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding=None,
        )
    )
    connection.initiate_connection()
    return connection


def call(path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers with which a correct client opens a call, and some more."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]
