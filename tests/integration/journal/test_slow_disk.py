"""Nothing is told that a server which is killed now would not know of when it is back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.journal.slow_disk import SlowDisk, slow_disk
from tests.integration.sessions.wire import Problem, Stream, problem_of, stream


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SlowDisk]:
    with slow_disk(tmp_path, "--lease-ttl-min", "0.5") as disk:
        yield disk


def stale(epoch: int, current: int) -> Problem:
    metadata = {"pool": "main", "engine": "e", "epoch": str(epoch), "current": str(current)}
    return Problem("FAILED_PRECONDITION", "STALE_EPOCH", metadata)


def begin(disk: SlowDisk, idle: Stream, ttl_ms: int = 60_000) -> int:
    """Attach engine e on a stream, and hold the disk; gives the epoch."""
    attach = pb.SessionAttach(engine="e")
    attach.ttl.FromMilliseconds(ttl_ms)
    answer = pb.SessionResponse.FromString(idle.say(attach=attach))
    disk.hold()
    return answer.attached.lease.epoch


def wait_for_epoch(disk: SlowDisk, wanted: int) -> None:
    """Until the engine has a lease of that epoch, written or not; 0: none."""
    while {one.engine: one.epoch for one in disk.wire.pool().engines}.get("e", 0) != wanted:
        pass


def test_a_table_is_told_when_what_made_it_is_written(disk: SlowDisk) -> None:
    kv = disk.wire.kv
    kv.Allocate(pb.AllocateRequest(engine="a", sequence_id=1, num_blocks=2))
    kv.Allocate(pb.AllocateRequest(engine="b", sequence_id=1))
    disk.hold()
    grown = kv.Allocate.future(pb.AllocateRequest(engine="a", sequence_id=1))
    freed = kv.Free.future(pb.FreeRequest(engine="c", sequence_id=7))
    while kv.Stats(pb.StatsRequest()).pools[0].held_blocks < 4:
        pass
    table = kv.GetBlockTable.future(pb.GetBlockTableRequest(engine="a", sequence_id=1))
    other = kv.GetBlockTable.future(pb.GetBlockTableRequest(engine="a", sequence_id=2))
    disk.answers()
    # An engine with nothing unwritten does not wait for the others.
    told = kv.GetBlockTable(pb.GetBlockTableRequest(engine="b", sequence_id=1))
    assert list(told.block_numbers) == [2]
    assert not any(call.done() for call in (grown, freed, table, other))
    disk.let_go()
    assert list(table.result().block_numbers) == [0, 1, 3]
    assert problem_of(other.result).reason == "SEQUENCE_NOT_FOUND"
    assert (grown.result().granted.table_length, freed.result()) == (3, pb.FreeResponse())


def test_a_takeover_ends_the_old_stream_when_it_is_written(disk: SlowDisk) -> None:
    with stream(disk.wire) as idle:
        epoch = begin(disk, idle)
        request = pb.AttachEngineRequest(engine="e", takeover=True)
        taken = disk.wire.kv.AttachEngine.future(request)
        wait_for_epoch(disk, epoch + 1)
        late = disk.wire.kv.RenewLease.future(pb.RenewLeaseRequest(engine="e", epoch=epoch))
        disk.answers()
        assert not any(call.done() for call in (idle.call, late, taken))
        disk.let_go()
        assert idle.end() == stale(epoch, epoch + 1)
        assert problem_of(late.result) == stale(epoch, epoch + 1)
        assert taken.result().lease.epoch == epoch + 1


def test_a_late_step_is_refused_when_what_ended_its_lease_is_written(disk: SlowDisk) -> None:
    with stream(disk.wire) as late, stream(disk.wire) as successor:
        epoch = begin(disk, late)
        successor.send(attach=pb.SessionAttach(engine="e", takeover=True))
        wait_for_epoch(disk, epoch + 1)
        late.send(step=pb.SessionStep(step_id=1))
        disk.answers()
        assert not late.call.done()
        disk.let_go()
        assert late.end() == stale(epoch, epoch + 1)


def test_a_resumed_lease_ends_its_old_stream_when_that_is_written(disk: SlowDisk) -> None:
    with stream(disk.wire) as idle, stream(disk.wire) as resumed:
        epoch = begin(disk, idle)
        resumed.send(attach=pb.SessionAttach(engine="e", epoch=epoch))
        disk.answers()
        assert not idle.call.done()
        disk.let_go()
        assert idle.end().reason == "SESSION_REPLACED"
        answer = pb.SessionResponse.FromString(next(resumed.call))
        assert answer.attached.lease.resumed
        assert resumed.step(1, 7)


def test_a_lease_that_runs_out_ends_its_stream_when_that_is_written(disk: SlowDisk) -> None:
    with stream(disk.wire) as idle:
        epoch = begin(disk, idle, ttl_ms=500)
        wait_for_epoch(disk, 0)
        disk.answers()
        assert not idle.call.done()
        disk.let_go()
        assert idle.end() == stale(epoch, 0)


@pytest.mark.parametrize("by", ["DetachEngine", "ReclaimEngine"])
def test_a_stream_ends_also_when_the_call_that_ended_its_lease_is_gone(
    disk: SlowDisk, by: str
) -> None:
    with stream(disk.wire) as idle:
        epoch = begin(disk, idle)
        call: Any
        if by == "DetachEngine":
            detach = pb.DetachEngineRequest(engine="e", epoch=epoch)
            call = disk.wire.kv.DetachEngine.future(detach)
        else:
            request = admin_pb2.ReclaimEngineRequest(engine="e", force=True)
            call = disk.wire.admin.ReclaimEngine.future(request)
        wait_for_epoch(disk, 0)
        call.cancel()
        disk.answers()
        assert not idle.call.done()
        disk.let_go()
        assert idle.end() == stale(epoch, 0)
        assert ("an operator reclaimed" in disk.log.read_text()) == (by == "ReclaimEngine")
