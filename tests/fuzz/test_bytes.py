"""Random bytes and random HTTP/2 at every listener: the server stays well and gives all back."""

import contextlib
import socket
import time
from collections.abc import Callable
from random import Random

import pytest

from tests.fuzz.conftest import PATIENCE, ROUNDS, Target
from tests.fuzz.frames import conversation, nearly_right_call

KINDS = ("unix", "tcp", "metrics")
CASES = 150 * ROUNDS
HTTP = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"x" * 70_000,
    b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
    b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n",
    b"OPTIONS * HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def random_bytes(random: Random) -> bytes:
    return random.randbytes(random.choice((0, 1, 8, 24, 100, 5000)))


def random_http(random: Random) -> bytes:
    data = bytearray(random.choice(HTTP))
    for _ in range(random.randrange(4)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data[: random.choice((len(data), random.randrange(len(data)) + 1))])


MAKERS = {
    "bytes": random_bytes,
    "HTTP/1": random_http,
    "frames": conversation,
    "calls": nearly_right_call,
}


def send(target: Target, kind: str, data: bytes, random: Random) -> None:
    """Send bytes in pieces, read what comes, and go away in one way or another."""
    with contextlib.closing(target.connect(kind)) as connection:
        with contextlib.suppress(OSError):
            while data:
                size = random.choice((1, 9, 100, len(data)))
                connection.sendall(data[:size])
                data = data[size:]
                if size == 1 and random.random() < 0.9:
                    continue
            for _ in range(random.randrange(3)):
                if not connection.recv(65536):
                    break
        if random.random() < 0.3:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_listener_lives_through(maker: str, kind: str, target: Target, seed: int) -> None:
    make: Callable[[Random], bytes] = MAKERS[maker]
    target.check_everywhere()
    files, memory = target.open_files(), target.memory_mb()
    random = Random(seed)
    for case in range(CASES):
        send(target, kind, make(random), random)
        if case % 25 == 0:
            target.check()
    target.check_everywhere()
    gives_up = time.monotonic() + PATIENCE
    while target.open_files() > files + 4 and time.monotonic() < gives_up:
        time.sleep(0.05)
    assert target.open_files() <= files + 4, "connections stay open"
    assert target.memory_mb() < memory + 100, "memory is not given back"
