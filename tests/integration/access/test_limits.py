"""What keeps one client from taking too much of a server."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from tests.conftest import ServerFactory
from tests.integration.access.conftest import (
    IDENTITIES,
    TOKENS,
    Guarded,
    port_of,
    rewrite,
    write,
)
from tests.integration.client.flavours import Flavour
from tests.integration.sessions.wire import Problem, Stream, Wire, stream
from tests.waiting import happens

WIDE = ("main:total=1000000,block_size=16,device=7",)
SEQUENCES = 65_536


def hasty(calls_per_second: float) -> str:
    return (
        f'{IDENTITIES}\n[[identity]]\nname = "hasty"\ntoken = "{TOKENS["hasty"]}"\n'
        f'engines = ["*"]\npools = ["*"]\ncalls_per_second = {calls_per_second}\n'
    )


def test_calls_beyond_the_rate_are_refused_for_one_identity_alone(
    guarded: Guarded, access: Path, flavour: Flavour
) -> None:
    write(access, hasty(0.02))
    server = guarded()
    client = flavour.client(port_of(server), token=TOKENS["hasty"], timeout=20.0)
    with flavour.entered(client) as kv:
        assert flavour.do(kv.can_allocate())
        for call in (kv.can_allocate, kv.session().attach):
            with pytest.raises(kvblock.RateLimitedError) as caught:
                flavour.do(call())
            assert caught.value.reason is kvblock.ErrorReason.RATE_LIMITED
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.retry_after is not None
            assert 0 < caught.value.retry_after <= 50
            assert caught.value.metadata == {
                "identity": "hasty",
                "limit": "calls_per_second",
                "max": "0.02",
            }
        with kvblock.connect(port_of(server), token=TOKENS["operator"]) as other:
            assert all(other.can_allocate() for _ in range(5))
        rewrite(server, access, hasty(100))
        assert all(flavour.do(kv.can_allocate()) for _ in range(5))


def test_steps_beyond_the_rate_are_held_back(guarded: Guarded, access: Path) -> None:
    write(access, hasty(5))
    server = guarded()
    started = time.monotonic()
    with (
        kvblock.connect(port_of(server), token=TOKENS["hasty"], timeout=30.0) as kv,
        kv.session() as session,
    ):
        for sequence_id in range(10):
            session.step(allocate=[sequence_id])
        # The attach and four steps go at once, the other six come at five a second.
        assert time.monotonic() - started >= 1.15


def test_calls_beyond_the_concurrent_ones_are_refused(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--concurrent-calls-max", "4"])
    with (
        kvblock.connect(server.address, timeout=20.0) as kv,
        kvblock.connect(server.address, timeout=1.0) as refused,
    ):
        # Their streams take all there are; nobody is left to detach by a call of its own.
        sessions = [kv.session(engine=engine) for engine in "abcd"]
        for session in sessions:
            session.attach()
        with pytest.raises(kvblock.KVBlockError) as caught:
            refused.can_allocate()
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.reason is None
        for session in sessions:
            session.close()

        def served_again() -> bool:
            try:
                return bool(kv.can_allocate())
            except kvblock.KVBlockError:
                return False

        happens(served_again)


def test_health_watches_beyond_their_limit_are_refused(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--health-watches-max", "1"])
    with grpc.insecure_channel(server.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        watch = stub.Watch(request)
        next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.Watch(request))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "health_watches_max = 1" in str(caught.value.details())
        assert stub.Check(request).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()

        def watches_again() -> bool:
            again = stub.Watch(request)
            try:
                next(again)
            except grpc.RpcError:
                return False
            again.cancel()
            return True

        happens(watches_again)


class Unread:
    """A session that sends steps with large answers and reads none."""

    def __init__(self, address: str) -> None:
        self._go_on = threading.Event()
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        generic: Any = self.channel
        self.call = generic.stream_stream("/kvblock.v1.KVBlockService/Session")(self._requests())

    def _requests(self) -> Iterator[bytes]:
        yield pb.SessionRequest(attach=pb.SessionAttach(engine="sleepy")).SerializeToString()
        ids = list(range(SEQUENCES))
        for step_id in range(1, 100):
            step = pb.EngineStep(free_sequence_ids=ids, allocate_sequence_ids=ids)
            request = pb.SessionRequest(step=pb.SessionStep(step_id=step_id, step=step))
            yield request.SerializeToString()
        self._go_on.wait()

    def end(self) -> None:
        self._go_on.set()
        self.channel.close()


def test_a_session_that_does_not_read_is_cut_off(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--slow-reader-seconds", "0.4", "--grace", "60"])
    unread = Unread(server.address)
    try:
        happens(lambda: "a session is cut off" in server.stderr)
        assert '"engine": "sleepy"' in server.stderr
        # Its lease is as it was, and its blocks are still held.
        with kvblock.connect(server.address, timeout=30.0) as kv:
            (engine,) = kv.stats().pools[0].engines
            assert engine.attached
            assert engine.held_blocks == SEQUENCES
            assert kv.audit()
        # When it reads at last it finds the answers of all that was carried out, and then why.
        with pytest.raises(grpc.RpcError) as caught:
            for _ in unread.call:
                pass
        assert caught.value.code() is grpc.StatusCode.ABORTED
        trailers: dict[str, Any] = dict(caught.value.trailing_metadata() or ())  # type: ignore[arg-type]
        info = ErrorInfo()
        Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
        assert info.reason == "SLOW_READER"
        assert dict(info.metadata) == {"limit": "slow_reader_seconds", "max": "0.4"}
    finally:
        unread.end()


def test_sessions_that_do_not_attach_end(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--slow-reader-seconds", "0.4"])
    wire = Wire(server.address)
    streams = [Stream(wire) for _ in range(8)]
    try:
        for one in streams:
            metadata = {"message": "attach"}
            assert one.end() == Problem("FAILED_PRECONDITION", "SESSION_STATE", metadata)
        # One that has attached may be silent for as long as its lease lasts.
        with stream(wire) as attached:
            attached.attach("e")
            with stream(wire) as late:
                assert late.end().reason == "SESSION_STATE"
            assert attached.step(1, 7)
    finally:
        for one in streams:
            one.close()
        wire.channel.close()


def test_a_drain_does_not_wait_for_a_session_that_was_cut_off(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(WIDE, ["--slow-reader-seconds", "0.4", "--grace", "60"])
    unread = Unread(server.address)
    try:
        happens(lambda: "a session is cut off" in server.stderr)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 30
        assert "Traceback" not in server.stderr
    finally:
        unread.end()


def test_a_session_that_is_idle_or_busy_is_not_cut_off(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--slow-reader-seconds", "0.1"])
    with kvblock.connect(server.address, timeout=30.0) as kv, kv.session() as session:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            session.step(free=[1], allocate=[1])
        idle = threading.Event()
        assert not idle.wait(0.5)
        assert session.step(free=[1], allocate=[1]).granted == 1
    assert "cut off" not in server.stderr


def test_a_peer_that_answers_no_ping_is_cut_off(server_factory: ServerFactory) -> None:
    server = server_factory(WIDE, ["--listen", "127.0.0.1:0", "--keepalive-seconds", "1"])
    host, _, port = server.addresses[1].rpartition(":")
    # gRPC itself would give up such a peer after a minute.
    with socket.create_connection((host, int(port)), timeout=20) as peer:
        settings = bytes(3) + b"\x04\x00" + bytes(4)
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        while peer.recv(65_536):
            pass
    with kvblock.connect(server.addresses[1]) as kv:
        assert kv.health()
