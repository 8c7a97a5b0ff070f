"""Calls over raw stubs, so that nothing but the server decides what becomes of a lease."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from kvblock.v1 import admin_pb2, admin_pb2_grpc, kvblock_pb2_grpc
from kvblock.v1 import kvblock_pb2 as pb

PATIENCE = 60.0
SESSION = "/kvblock.v1.KVBlockService/Session"


class Problem(NamedTuple):
    """How a call failed."""

    code: str
    reason: str
    metadata: dict[str, str]


class Wire:
    """A channel and what is asked through it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.kv = kvblock_pb2_grpc.KVBlockServiceStub(self.channel)
        self.admin = admin_pb2_grpc.KVBlockAdminStub(self.channel)

    def attach(
        self, engine: str, epoch: int = 0, takeover: bool = False, ttl_ms: int | None = None
    ) -> pb.AttachEngineResponse:
        ttl = None if ttl_ms is None else Duration(nanos=ttl_ms % 1000 * 10**6)
        if ttl is not None and ttl_ms is not None:
            ttl.seconds = ttl_ms // 1000
        request = pb.AttachEngineRequest(engine=engine, epoch=epoch, takeover=takeover, ttl=ttl)
        return self.kv.AttachEngine(request, timeout=PATIENCE)

    def renew(self, engine: str, epoch: int) -> None:
        request = pb.RenewLeaseRequest(engine=engine, epoch=epoch)
        self.kv.RenewLease(request, timeout=PATIENCE)

    def allocate(self, engine: str, epoch: int, sequence_id: int, blocks: int = 1) -> list[int]:
        request = pb.AllocateRequest(
            engine=engine, epoch=epoch, sequence_id=sequence_id, num_blocks=blocks
        )
        return list(self.kv.Allocate(request, timeout=PATIENCE).granted.block_numbers)

    def pool(self) -> pb.PoolStats:
        """The pool's state."""
        return self.kv.Stats(pb.StatsRequest(), timeout=PATIENCE).pools[0]

    def state(self) -> tuple[object, ...]:
        """All that a command changes, but not how long leases last."""
        pool = self.pool()
        engines = [(one.engine, one.held_blocks, one.epoch) for one in pool.engines]
        for one in pool.engines:
            one.ClearField("lease_expires_in")
        rows = self.admin.ListSequences(admin_pb2.ListSequencesRequest(page_size=1000))
        return pool.SerializeToString(deterministic=True), engines, rows.SerializeToString()

    def clean(self) -> bool:
        report = self.admin.Audit(admin_pb2.AuditRequest(), timeout=PATIENCE).reports[0]
        return report.clean


class Stream:
    """A session whose messages are sent one by one."""

    def __init__(self, wire: Wire) -> None:
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        channel: Any = wire.channel
        self.call = channel.stream_stream(SESSION)(iter(self._outbox.get, None), timeout=PATIENCE)

    def say(self, **message: Message) -> bytes:
        """Send a message and answer the bytes of its answer."""
        self.send(**message)
        answer = next(self.call)
        assert isinstance(answer, bytes)
        return answer

    def send(self, **message: Message) -> None:
        """Send a message whose answer is read later."""
        request = pb.SessionRequest(**message)  # type: ignore[arg-type]
        self._outbox.put(request.SerializeToString())

    def attach(self, engine: str, epoch: int = 0, takeover: bool = False) -> pb.SessionAttached:
        message = pb.SessionAttach(engine=engine, epoch=epoch, takeover=takeover)
        return pb.SessionResponse.FromString(self.say(attach=message)).attached

    def step(self, step_id: int, *allocate: int) -> bytes:
        work = pb.EngineStep(allocate_sequence_ids=allocate)
        return self.say(step=pb.SessionStep(step_id=step_id, step=work))

    def end(self) -> Problem:
        """With what the server ends the stream."""
        return problem_of(lambda: next(self.call))

    def break_off(self) -> None:
        self.call.cancel()

    def close(self) -> None:
        """Let the thread that sends messages end."""
        self._outbox.put(None)


@contextmanager
def stream(wire: Wire) -> Iterator[Stream]:
    opened = Stream(wire)
    try:
        yield opened
    finally:
        opened.close()


def problem_of(call: Any) -> Problem:
    """How a call that has to fail does."""
    try:
        answer = call()
    except grpc.RpcError as error:
        failed: Any = error
        status = rpc_status.from_call(failed)
        info = ErrorInfo()
        if status is not None:
            for detail in status.details:
                detail.Unpack(info)
        return Problem(failed.code().name, info.reason, dict(info.metadata))
    raise AssertionError(f"it did not fail: {answer!r}")
