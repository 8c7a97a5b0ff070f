"""A journal that cannot be written: nothing is carried out, reads go on, and it recovers."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

import kvblock
from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.sessions.wire import Wire, problem_of, stream

REASON = "JOURNAL_UNWRITABLE"


def may_write(server: kvblock.EmbeddedServer, size: int) -> None:
    """Bound the size of the files that the server may write, as a full disk does."""
    hard = resource.RLIM_INFINITY
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_full_disk(tmp_path: Path) -> None:
    arguments = ["--state-dir", str(tmp_path)]
    server = kvblock.EmbeddedServer(["main:total=64"], arguments)
    with server, kvblock.connect(server.address, retries=False) as kv:
        assert kv.allocate(1, 2)
        assert kv.allocate(1, 1, engine="calm")
        may_write(server, 0)
        with pytest.raises(kvblock.UnavailableError) as caught:
            kv.allocate(2, 3, request_id="r2")
        assert caught.value.reason is not None
        assert caught.value.reason.name == REASON
        assert caught.value.retry_after is not None
        assert caught.value.fate_unknown
        with pytest.raises(kvblock.UnavailableError):
            kv.free(1)
        # What changes nothing is answered, but for what is not written yet.
        assert kv.get_block_table(1, engine="calm").block_numbers == [2]
        with pytest.raises(kvblock.NotFoundError):
            kv.get_block_table(2, engine="calm")
        for sequence_id in (1, 2):
            with pytest.raises(kvblock.UnavailableError) as caught:
                kv.get_block_table(sequence_id)
            assert caught.value.reason is kvblock.ErrorReason.JOURNAL_UNWRITABLE
        assert kv.audit()
        may_write(server, resource.RLIM_INFINITY)
        with kvblock.connect(server.address, timeout=30.0) as patient:
            again = patient.allocate(2, 3, request_id="r2")
            assert again == kvblock.Granted([3, 4, 5], 16, 0, 3)
            patient.free(1)
        server.process.kill()
        server.process.wait()
    with (
        kvblock.EmbeddedServer(["main:total=64"], arguments) as restarted,
        kvblock.connect(restarted.address) as kv,
    ):
        assert kv.get_block_table(2).block_numbers == [3, 4, 5]
        assert kv.stats().pools[0].held_blocks == 4
        assert kv.audit()


def test_a_disk_that_is_full_when_leases_run_out_leaves_them_to_run_out_later(
    tmp_path: Path,
) -> None:
    arguments = ["--state-dir", str(tmp_path), "--lease-ttl-min", "0.5"]
    server = kvblock.EmbeddedServer(["main:total=64"], arguments)
    with server, kvblock.connect(server.address) as kv:
        wire = Wire(server.address)
        for engine in "abcd":
            wire.attach(engine, ttl_ms=500)
        may_write(server, 0)

        def until(condition: Callable[[pb.PoolStats], bool]) -> None:
            while not condition(wire.pool()):
                assert kv.health(), server.stderr

        until(lambda pool: pool.expired_leases_total > 0)
        may_write(server, resource.RLIM_INFINITY)
        until(lambda pool: pool.expired_leases_total == 4)
        wire.channel.close()
        assert kv.audit()


@pytest.mark.parametrize("by", ["reclaim", "expiry"])
def test_a_lease_that_ends_on_a_full_disk_ends_its_stream_when_there_is_space_again(
    tmp_path: Path, by: str
) -> None:
    arguments = ["--state-dir", str(tmp_path), "--lease-ttl-min", "0.5"]
    with kvblock.EmbeddedServer(["main:total=64"], arguments) as server:
        wire = Wire(server.address)
        with stream(wire) as idle:
            attach = pb.SessionAttach(engine="e")
            attach.ttl.FromMilliseconds(500 if by == "expiry" else 60_000)
            answer = pb.SessionResponse.FromString(idle.say(attach=attach))
            may_write(server, 0)
            if by == "reclaim":
                request = admin_pb2.ReclaimEngineRequest(engine="e", force=True)
                assert problem_of(lambda: wire.admin.ReclaimEngine(request)).reason == REASON
            while wire.pool().engines:
                pass
            # Another one is not told either of what may never have been.
            late = pb.RenewLeaseRequest(engine="e", epoch=answer.attached.lease.epoch)
            assert problem_of(lambda: wire.kv.RenewLease(late)).reason == REASON
            assert not idle.call.done()
            may_write(server, resource.RLIM_INFINITY)
            assert idle.end().reason == "STALE_EPOCH"
        wire.channel.close()
