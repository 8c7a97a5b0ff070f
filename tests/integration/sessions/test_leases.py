"""Leases over a real connection: resumed, taken over, run out, and fenced."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.message import Message

import kvblock
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.conftest import ServerFactory
from tests.integration.sessions.wire import PATIENCE, Problem, Stream, Wire, problem_of, stream
from tests.waiting import happens

POOL = "main:total=64,block_size=16,device=3"


@pytest.fixture
def server(server_factory: ServerFactory) -> kvblock.EmbeddedServer:
    return server_factory((POOL,), ("--lease-ttl=60", "--lease-ttl-min=0.5"))


@pytest.fixture
def wire(server: kvblock.EmbeddedServer) -> Iterator[Wire]:
    wire = Wire(server.address)
    yield wire
    assert wire.clean()
    wire.channel.close()


def stale(engine: str, epoch: int, current: int) -> Problem:
    metadata = {"pool": "main", "engine": engine, "epoch": str(epoch), "current": str(current)}
    return Problem("FAILED_PRECONDITION", "STALE_EPOCH", metadata)


def test_session_resumes_on_a_new_stream(wire: Wire) -> None:
    with stream(wire) as first, stream(wire) as second:
        attached = first.attach("e")
        assert (attached.last_step_id, attached.lease.resumed) == (0, False)
        first.step(1, 7)
        answer = first.step(2, 8, 9)
        before = wire.state()
        resumed = second.attach("e", epoch=attached.lease.epoch)
        assert resumed.lease.resumed
        assert resumed.lease.epoch == attached.lease.epoch
        assert (resumed.last_step_id, resumed.held_blocks, resumed.sequences) == (2, 3, 3)
        ended = first.end()
        assert (ended.code, ended.reason) == ("ABORTED", "SESSION_REPLACED")
        assert second.step(2, 8, 9) == answer
        assert wire.state() == before
        third = pb.SessionResponse.FromString(second.step(3, 7)).stepped
        assert list(third.result.block_numbers) == [3]


def test_broken_stream_leaves_the_lease_to_be_resumed(wire: Wire) -> None:
    with stream(wire) as first, stream(wire) as second:
        epoch = first.attach("e").lease.epoch
        answer = first.step(1, 7)
        first.break_off()
        with stream(wire) as other:
            held = problem_of(lambda: other.attach("e"))
        assert (held.reason, held.metadata) == ("ENGINE_ATTACHED", {"pool": "main", "engine": "e"})
        assert second.attach("e", epoch=epoch).last_step_id == 1
        assert second.step(1, 7) == answer


def by_session(wire: Wire, streams: list[Stream]) -> int:
    streams.append(Stream(wire))
    return streams[0].attach("e", takeover=True).lease.epoch


def by_call(wire: Wire, _: list[Stream]) -> int:
    return wire.attach("e", takeover=True).lease.epoch


@pytest.mark.parametrize("take_over", [by_session, by_call])
def test_takeover_ends_the_old_stream(
    wire: Wire, take_over: Callable[[Wire, list[Stream]], int]
) -> None:
    streams: list[Stream] = []
    with stream(wire) as first:
        epoch = first.attach("e").lease.epoch
        first.step(1, 7, 8)
        current = take_over(wire, streams)
        assert current > epoch
        assert first.end() == stale("e", epoch, current)
    assert wire.pool().quarantined_blocks == 2
    assert wire.allocate("e", current, 1) == [2]
    for one in streams:
        one.close()


def test_detach_by_call_ends_the_stream(wire: Wire) -> None:
    with stream(wire) as first:
        epoch = first.attach("e").lease.epoch
        first.step(1, 7)
        request = pb.DetachEngineRequest(engine="e", epoch=epoch)
        assert wire.kv.DetachEngine(request).freed_blocks == 1
        assert first.end() == stale("e", epoch, 0)
    assert wire.pool().quarantined_blocks == 0


def test_lease_that_runs_out_ends_its_stream_and_frees_later(wire: Wire) -> None:
    with stream(wire) as idle:
        attach = pb.SessionAttach(engine="e")
        attach.ttl.FromMilliseconds(500)
        answer = pb.SessionResponse.FromString(idle.say(attach=attach))
        epoch = answer.attached.lease.epoch
        idle.step(1, 7, 8)
        assert idle.end() == stale("e", epoch, 0)
    pool = wire.pool()
    assert (pool.expired_leases_total, pool.reclaimed_blocks_total) == (1, 2)
    assert problem_of(lambda: wire.attach("e", epoch=epoch)) == stale("e", epoch, 0)
    while wire.pool().quarantined_blocks:
        pass
    assert wire.allocate("f", 0, 1, 2) == [1, 0]


@pytest.mark.parametrize("how", ["detach", "takeover", "expiry"])
def test_an_allocation_that_waits_is_told_when_its_lease_ends(wire: Wire, how: str) -> None:
    holder = wire.allocate("holder", 0, 1, 64)
    epoch = wire.attach("e", ttl_ms=500 if how == "expiry" else None).lease.epoch
    request = pb.AllocateRequest(engine="e", epoch=epoch, sequence_id=1)
    request.max_wait.FromSeconds(60)
    waiting = wire.kv.Allocate.future(request, timeout=PATIENCE)
    while not wire.pool().waiting:
        pass
    current = 0
    if how == "detach":
        wire.kv.DetachEngine(pb.DetachEngineRequest(engine="e", epoch=epoch))
    elif how == "takeover":
        current = wire.attach("e", takeover=True).lease.epoch
    assert problem_of(waiting.result) == stale("e", epoch, current)
    # It did not wait for its deadline: none of the blocks came back.
    assert wire.pool().held_blocks == len(holder)


# What changes something, by engine and epoch. Allocations of sequence 1, which has a block.
MUTATING: dict[str, Callable[[str, int, str], Message]] = {
    "Allocate": lambda e, n, i: pb.AllocateRequest(
        engine=e, epoch=n, sequence_id=1, num_blocks=2, request_id=i
    ),
    "Free": lambda e, n, i: pb.FreeRequest(engine=e, epoch=n, sequence_id=1, request_id=i),
    "FreeReturningCount": lambda e, n, i: pb.FreeReturningCountRequest(
        engine=e, epoch=n, sequence_id=1, request_id=i
    ),
    "Step": lambda e, n, i: pb.StepRequest(
        engine=e,
        epoch=n,
        request_id=i,
        step=pb.EngineStep(free_sequence_ids=[1], allocate_sequence_ids=[2]),
    ),
    "DetachEngine": lambda e, n, i: pb.DetachEngineRequest(engine=e, epoch=n, request_id=i),
}


@pytest.mark.parametrize("method", [*MUTATING, "RenewLease", "AttachEngine"])
@pytest.mark.parametrize("kind", ["old", "none", "ended"])
def test_stale_epoch_changes_nothing(wire: Wire, method: str, kind: str) -> None:
    old = wire.attach("e").lease.epoch
    wire.allocate("e", old, 1)
    current = wire.attach("e", takeover=True).lease.epoch
    wire.allocate("e", current, 1)
    if kind == "ended":
        wire.kv.DetachEngine(pb.DetachEngineRequest(engine="e", epoch=current))
        old, current = current, 0
    epoch = 0 if kind == "none" else old
    if method == "AttachEngine":
        if kind == "none":
            assert problem_of(lambda: wire.attach("e", epoch)).reason == "ENGINE_ATTACHED"
            return
        request: Message = pb.AttachEngineRequest(engine="e", epoch=epoch)
    elif method == "RenewLease":
        request = pb.RenewLeaseRequest(engine="e", epoch=epoch)
    else:
        request = MUTATING[method]("e", epoch, "")
    before = wire.state()
    assert problem_of(lambda: getattr(wire.kv, method)(request)) == stale("e", epoch, current)
    assert wire.state() == before


@pytest.mark.parametrize("method", MUTATING)
def test_request_that_comes_again(wire: Wire, method: str) -> None:
    epoch = wire.attach("e").lease.epoch
    wire.allocate("e", epoch, 1)
    call = getattr(wire.kv, method)
    request = MUTATING[method]("e", epoch, "once")
    first = call(request)
    before = wire.state()
    assert [call(request) for _ in range(3)] == [first] * 3
    assert wire.state() == before


@pytest.mark.parametrize("method", MUTATING)
def test_request_id_of_another_request(wire: Wire, method: str) -> None:
    epoch = wire.attach("e").lease.epoch
    wire.kv.Allocate(pb.AllocateRequest(engine="e", epoch=epoch, sequence_id=9, request_id="once"))
    before = wire.state()
    request = MUTATING[method]("e", epoch, "once")
    metadata = {"pool": "main", "engine": "e", "field": "request_id"}
    reused = Problem("INVALID_ARGUMENT", "ID_REUSED", metadata)
    assert problem_of(lambda: getattr(wire.kv, method)(request)) == reused
    assert wire.state() == before


def test_server_that_stood_still_takes_no_lease(server: kvblock.EmbeddedServer, wire: Wire) -> None:
    """Stopped for longer than every TTL: the engines, which could not be heard, keep theirs."""
    epochs = {f"e{n}": wire.attach(f"e{n}", ttl_ms=500 + 100 * n).lease.epoch for n in range(5)}
    wire.allocate("gone", wire.attach("gone", ttl_ms=2400).lease.epoch, 1, 5)
    wire.admin.ReclaimEngine(admin_pb2.ReclaimEngineRequest(engine="gone", force=True))
    with stream(wire) as session:
        epochs["s"] = session.attach("s").lease.epoch
        for engine, epoch in epochs.items():
            wire.renew(engine, epoch)
        server.process.send_signal(signal.SIGSTOP)
        try:
            # The span is what is tested; nothing is waited for.
            time.sleep(2.5)
        finally:
            server.process.send_signal(signal.SIGCONT)
        for engine, epoch in epochs.items():
            wire.renew(engine, epoch)
        session.say(renew=pb.SessionRenew())
    pool = wire.pool()
    assert pool.expired_leases_total == 0
    assert {one.engine: one.epoch for one in pool.engines} == epochs
    # The quarantine would have been over in the meantime, and has its full time again.
    rows = wire.admin.ListBlocks(admin_pb2.ListBlocksRequest()).blocks
    assert [row.quarantine_ends_in.ToMilliseconds() > 0 for row in rows[:5]] == [True] * 5
    happens(lambda: "stood still" in server.stderr)


def test_renewal_that_came_while_the_server_stood_still_for_a_moment_counts(
    server: kvblock.EmbeddedServer, wire: Wire
) -> None:
    """Stopped for too short a time to be noticed as such, but beyond the end of the lease."""
    epoch = wire.attach("e", ttl_ms=500).lease.epoch
    for _ in range(5):
        wire.renew("e", epoch)
        # The spans are what is tested; nothing is waited for.
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        try:
            request = pb.RenewLeaseRequest(engine="e", epoch=epoch)
            renewal = wire.kv.RenewLease.future(request, timeout=PATIENCE)
            time.sleep(0.36)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert renewal.result().ttl.ToMilliseconds() == 500
    assert wire.pool().expired_leases_total == 0


def test_a_lease_keeps_its_ttl_and_tells_what_is_left(wire: Wire) -> None:
    first = wire.attach("e", ttl_ms=20_000).lease
    with stream(wire) as session:
        resumed = session.attach("e", epoch=first.epoch).lease
        renewal = pb.SessionResponse.FromString(session.say(renew=pb.SessionRenew())).renewed
    again = wire.attach("e", first.epoch).lease
    unary = wire.kv.RenewLease(pb.RenewLeaseRequest(engine="e", epoch=first.epoch))
    assert unary.ttl == unary.lease.ttl
    for lease in (first, resumed, renewal.lease, again, unary.lease):
        assert (lease.epoch, lease.ttl.seconds) == (first.epoch, 20)
        assert lease.renew_after.ToMilliseconds() == 6666
        assert 0 < lease.expires_in.ToMilliseconds() <= 20_000
        assert lease.resumed == (lease is not first)
    assert wire.attach("e", first.epoch, ttl_ms=15_000).lease.ttl.seconds == 15
    assert wire.attach("e", first.epoch).lease.ttl.seconds == 15
    assert wire.attach("e", first.epoch, takeover=True).lease.ttl.seconds == 15
    # A new lease has the server's.
    assert wire.attach("e", takeover=True).lease.ttl.seconds == 60
