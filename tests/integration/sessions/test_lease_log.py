"""What the log of a real server says of leases."""

import json
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import kvblock
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.conftest import ServerFactory
from tests.integration.sessions.wire import Wire, stream

ARGUMENTS = ("--log-format", "json", "--lease-ttl-min", "0.5")
SHOWN = ("level", "event", "pool", "engine", "epoch", "blocks", "ended_epoch")


def events_of(server: kvblock.EmbeddedServer) -> list[dict[str, Any]]:
    """What was logged about the engine `e`; the server has stopped by then."""
    assert server.stop() == 0
    events = (json.loads(line) for line in server.stderr.splitlines())
    return [event for event in events if event.get("engine") == "e"]


def shown(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: event[key] for key in SHOWN if key in event} for event in events]


def info(event: str, epoch: int, **more: Any) -> dict[str, Any]:
    return {"level": "info", "event": event, "pool": "main", "engine": "e", "epoch": epoch, **more}


@pytest.mark.parametrize("by_stream", [False, True], ids=["unary", "session"])
def test_attach_resume_takeover_and_detach_are_told(
    server_factory: ServerFactory, by_stream: bool
) -> None:
    server = server_factory(("main:total=8,quarantine=0",), ARGUMENTS)
    wire = Wire(server.address)

    def attach(epoch: int = 0, takeover: bool = False) -> int:
        if not by_stream:
            return wire.attach("e", epoch, takeover).lease.epoch
        with stream(wire) as session:
            return session.attach("e", epoch, takeover).lease.epoch

    first = attach()
    wire.allocate("e", first, 1, 2)
    assert attach(first) == first
    second = attach(takeover=True)
    wire.allocate("e", second, 1, 3)
    wire.kv.DetachEngine(pb.DetachEngineRequest(engine="e", epoch=second))
    events = events_of(server)
    assert shown(events) == [
        info("an engine attached", first, blocks=0),
        info("an engine resumed its lease", first, blocks=2),
        info("an engine took a lease over", second, blocks=0, ended_epoch=first),
        info("an engine detached", second, blocks=3),
    ]
    assert all(event["peer"].startswith(("unix:", "ipv4:127.0.0.1:")) for event in events)
    assert {event.get("ttl_ms") for event in events[:3]} == {10_000}


def test_a_detach_in_a_session_is_told(server_factory: ServerFactory) -> None:
    server = server_factory(("main:total=8",), ARGUMENTS)
    with stream(Wire(server.address)) as session:
        epoch = session.attach("e").lease.epoch
        session.step(1, 5, 6)
        session.say(detach=pb.SessionDetach())
    assert shown(events_of(server)) == [
        info("an engine attached", epoch, blocks=0),
        info("an engine detached", epoch, blocks=2),
    ]


def test_what_is_asked_again_is_told_once(server_factory: ServerFactory) -> None:
    server = server_factory(("main:total=8",), ARGUMENTS)
    kv = Wire(server.address).kv
    attach = pb.AttachEngineRequest(engine="e", request_id="a")
    epoch = kv.AttachEngine(attach).lease.epoch
    assert kv.AttachEngine(attach).lease.epoch == epoch
    for _ in range(2):
        kv.DetachEngine(pb.DetachEngineRequest(engine="e", epoch=epoch, request_id="d"))
    assert [event["event"] for event in events_of(server)] == [
        "an engine attached",
        "an engine detached",
    ]


def test_leases_that_are_lost_are_told(server_factory: ServerFactory) -> None:
    server = server_factory(("main:total=8,quarantine=0",), ARGUMENTS)
    wire = Wire(server.address)
    reclaimed = wire.attach("e").lease.epoch
    wire.allocate("e", reclaimed, 1, 2)
    wire.admin.ReclaimEngine(admin_pb2.ReclaimEngineRequest(engine="e", force=True))
    ttl = Duration(nanos=500_000_000)
    expired = wire.kv.AttachEngine(pb.AttachEngineRequest(engine="e", ttl=ttl)).lease.epoch
    wire.allocate("e", expired, 1, 3)
    while wire.pool().engines:
        pass
    events = events_of(server)
    assert shown(events) == [
        info("an engine attached", reclaimed, blocks=0),
        info("an operator reclaimed an engine", reclaimed, blocks=2),
        info("an engine attached", expired, blocks=0),
        info("a lease expired", expired, blocks=3) | {"level": "warning"},
    ]


def test_at_debug_nothing_is_told_of_grpc_or_other_libraries(
    server_factory: ServerFactory,
) -> None:
    server = server_factory(("main:total=8",), (*ARGUMENTS, "--log-level", "debug"))
    wire = Wire(server.address)
    wire.attach("e")
    with pytest.raises(grpc.RpcError):
        wire.kv.GetBlockTable(pb.GetBlockTableRequest(sequence_id=9))
    assert server.stop() == 0
    loggers = {json.loads(line)["logger"].split(".")[0] for line in server.stderr.splitlines()}
    assert loggers <= {"kvblock", "kvblock_service"}
