"""Calls that were not let in, or whose request does not come, keep nobody out."""

import asyncio
import gzip
import os
import socket
import struct
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import grpc
import h2.connection
import h2.events
import pytest

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1 import kvblock_pb2_grpc
from tests.conftest import ServerFactory
from tests.fuzz.frames import call, client
from tests.integration.access.conftest import Guarded
from tests.waiting import happens

WIDE = ("main:total=1000000,block_size=16,device=7",)
SERVICE = "/kvblock.v1.KVBlockService/"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
BOMB = 15 * 2**20
PATIENCE = 30.0


class Caller:
    """A connection that opens calls and sends no more of them than it is told."""

    def __init__(self, address: str) -> None:
        if address.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._h2: h2.connection.H2Connection = client()
        self.statuses: dict[int, str] = {}
        self._knows_limits = False
        self._send()
        # A correct client learns first how many calls it may have at once.
        while not self._knows_limits:
            self._read()

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def open(self, path: str, *more: tuple[bytes, bytes], data: bytes = b"") -> int:
        """Open a call, and send some of its request."""
        stream: int = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, call(path.encode(), *more))
        for at in range(0, len(data), 16_384):
            self._h2.send_data(stream, data[at : at + 16_384])
        self._send()
        return stream

    def ends(self, stream: int) -> str:
        """The grpc-status that a call ends with."""
        while stream not in self.statuses:
            self._read()
        return self.statuses[stream]

    def _read(self) -> None:
        data = self._socket.recv(65_536)
        assert data, "the server has closed the connection"
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                found = dict(event.headers or ())
                if b"grpc-status" in found:
                    self.statuses[event.stream_id] = found[b"grpc-status"].decode()
            elif isinstance(event, h2.events.RemoteSettingsChanged):
                self._knows_limits = True
            elif isinstance(event, h2.events.StreamReset):
                self.statuses.setdefault(event.stream_id, f"reset {event.error_code}")
        self._send()

    def _send(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


def status(code: grpc.StatusCode) -> str:
    number: tuple[int, str] = code.value
    return str(number[0])


UNAUTHENTICATED = status(grpc.StatusCode.UNAUTHENTICATED)
UNIMPLEMENTED = status(grpc.StatusCode.UNIMPLEMENTED)
RESOURCE_EXHAUSTED = status(grpc.StatusCode.RESOURCE_EXHAUSTED)
DEADLINE_EXCEEDED = status(grpc.StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize(
    "path",
    [
        f"{SERVICE}Allocate",
        f"{SERVICE}Session",
        "/kvblock.v1.KVBlockAdmin/Audit",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_a_stranger_is_answered_before_anything_of_its_request_has_come(
    path: str, guarded: Guarded
) -> None:
    with Caller(guarded().addresses[1]) as caller:
        assert caller.ends(caller.open(path)) == UNAUTHENTICATED


def test_what_was_packed_is_not_unpacked(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--listen", "127.0.0.1:0"])
    packed = gzip.compress(bytes(BOMB))
    message = struct.pack(">BI", 1, len(packed)) + packed
    before = memory(server)
    with ExitStack() as stack:
        for _ in range(10):
            caller = stack.enter_context(Caller(server.addresses[1]))
            bombs = [
                caller.open(f"{SERVICE}Allocate", (b"grpc-encoding", b"gzip"), data=message)
                for _ in range(4)
            ]
            assert {caller.ends(bomb) for bomb in bombs} == {UNIMPLEMENTED}
        # All of them unpacked are 600 MiB, and each one alone is more than this.
        assert memory(server) < before + BOMB


def memory(server: kvblock.EmbeddedServer) -> int:
    """How much memory a server has, in bytes."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("path", [f"{SERVICE}Allocate", HEALTH_CHECK, f"{SERVICE}Session"])
def test_calls_without_a_request_give_way(path: str, server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--concurrent-calls-max", "8", "--request-seconds", "600"])
    with Caller(server.address) as caller, kvblock.connect(server.address, timeout=PATIENCE) as kv:
        opened = [caller.open(path) for _ in range(8)]
        with kv.session(engine="a") as first, kv.session(engine="b") as second:
            for number in range(1, 20):
                assert first.step(allocate=[number]).granted == 1
                assert second.step(allocate=[number]).granted == 1
                assert kv.allocate(number)
            # The two sessions have taken the places of the two that had waited longest, and each
            # Allocate takes another one's for a moment.
            assert [caller.ends(stream) for stream in opened[:3]] == [RESOURCE_EXHAUSTED] * 3
            assert opened[-1] not in caller.statuses
        happens(lambda: '"event": "call rejected"' in server.stderr)
        assert "concurrent_calls_max is reached" in server.stderr
        assert '"peer": "unix:' in server.stderr


@pytest.mark.parametrize("path", [f"{SERVICE}Allocate", HEALTH_CHECK])
def test_a_request_that_does_not_come_in_time_ends_its_call(
    path: str, server_factory: ServerFactory
) -> None:
    server = server_factory(WIDE, ["--request-seconds", "0.2"])
    with Caller(server.address) as caller:
        nothing = caller.open(path)
        half = caller.open(path, data=struct.pack(">BI", 0, 100) + bytes(50))
        assert caller.ends(nothing) == DEADLINE_EXCEEDED
        assert caller.ends(half) == DEADLINE_EXCEEDED
    happens(lambda: "a request did not arrive within request_seconds" in server.stderr)


def test_a_call_that_ends_without_a_request_is_answered(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE)
    with grpc.insecure_channel(server.address) as channel:
        generic: Any = channel
        with pytest.raises(grpc.RpcError) as caught:
            generic.stream_unary(f"{SERVICE}Allocate")(iter(()), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_renewals_and_health_have_room_of_their_own(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--concurrent-calls-max", "3"])
    with (
        kvblock.connect(server.address, engine="unary", timeout=PATIENCE) as kv,
        ExitStack() as stack,
    ):
        lease = kv.attach_engine()
        for engine in "abc":
            session = kv.session(engine=engine)
            session.attach()
            stack.callback(session.close)
        stub = kvblock_pb2_grpc.KVBlockServiceStub(
            stack.enter_context(grpc.insecure_channel(server.address))
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.Stats(pb.StatsRequest(), timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == "concurrent_calls_max = 3 is reached"
        trailers: Any = caught.value.trailing_metadata()
        assert dict(trailers)["kvblock-then"] == "repeat"
        renewal = pb.RenewLeaseRequest(engine="unary", epoch=lease.epoch)
        assert stub.RenewLease(renewal, timeout=PATIENCE).ttl.seconds == 10
        assert kv.health()


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("number", [2_000, 4_000])
def test_every_call_of_a_burst_is_answered(
    number: int, connections: int, server_factory: ServerFactory
) -> None:
    server = server_factory(WIDE)
    outcomes = asyncio.run(burst(server.address, number, connections))
    assert outcomes == {"granted": number}


def test_beyond_the_limit_calls_are_refused_and_never_cancelled(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(WIDE, ["--concurrent-calls-max", "500"])
    # Whoever waits for blocks is being served.
    outcomes = asyncio.run(burst(server.address, 900, 3, blocks=1_000_000, max_wait=2))
    assert set(outcomes) == {"granted", "refused", "RESOURCE_EXHAUSTED"}
    # The first one takes all there is and ends; so many others wait at once.
    assert outcomes["granted"] == 1
    assert outcomes["refused"] >= 500


async def burst(
    address: str, number: int, connections: int, blocks: int = 1, max_wait: int = 0
) -> Counter[str]:
    """What comes of so many Allocates at once, each by its own id."""
    # Without this, channels to one address share their connection.
    apart = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        stubs = [
            kvblock_pb2_grpc.KVBlockServiceStub(
                await stack.enter_async_context(grpc.aio.insecure_channel(address, apart))
            )
            for _ in range(connections)
        ]

        async def one(sequence_id: int) -> str:
            request = pb.AllocateRequest(
                engine=f"e{sequence_id % 50}", sequence_id=sequence_id, num_blocks=blocks
            )
            if max_wait:
                request.max_wait.seconds = max_wait
            try:
                answer = await stubs[sequence_id % connections].Allocate(request, timeout=PATIENCE)
            except grpc.RpcError as error:
                return error.code().name
            return answer.WhichOneof("result") or "nothing"

        return Counter(await asyncio.gather(*(one(each) for each in range(number))))
