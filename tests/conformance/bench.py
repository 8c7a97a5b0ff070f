"""The server that vectors run against, and the runner's own hands on it."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

import kvblock
from kvblock.v1 import admin_pb2, admin_pb2_grpc, kvblock_pb2, kvblock_pb2_grpc
from tests.conformance.cases import Case, Json
from tests.waiting import happens

POOLS = (
    "side:total=4,block_size=32,device=1,quarantine=0",
    "main:total=8,block_size=16,device=7,quarantine=0",
)
MESSAGE_BYTES_MAX = 1024
LIMITS = {
    "message-bytes-max": MESSAGE_BYTES_MAX,
    "blocks-per-request-max": 64,
    "sequences-per-step-max": 8,
    "sequences-per-engine-max": 4,
    "pools-max": 3,
    "engines-max": 3,
    "sessions-max": 2,
    "wait-queue-max": 1,
    "max-wait-max": 60,
    "page-size-max": 3,
}
ARGUMENTS = [
    "--default-pool=main",
    # No lease ends by itself while vectors run, also one that asked for a short time.
    "--lease-ttl-min=3600",
    "--lease-ttl=3600",
    "--lease-ttl-max=7200",
    *(f"--{name}={value}" for name, value in LIMITS.items()),
]
SERVICES = [
    kvblock_pb2.DESCRIPTOR.services_by_name["KVBlockService"],
    admin_pb2.DESCRIPTOR.services_by_name["KVBlockAdmin"],
]
ENDS_SERVER = "Drain"
METHODS = {method.name: method for service in SERVICES for method in service.methods}


def path_of(method: str) -> str:
    """`package.Service/Method` of a method's name."""
    return f"{METHODS[method].containing_service.full_name}/{method}"


class Bench:
    """A server with small limits whose pools can be brought back to where they began."""

    def __init__(self, address: str, stubs: Any) -> None:
        self.address = address
        self._stubs = stubs
        self._pools: dict[str, Json] = {}
        self._epochs: dict[str, int] = {}
        self._named = {"default"}
        self._scenes = 0

    def do(self, calls: list[Json]) -> None:
        """Carry out what is written in a vector as `before`."""
        for call in calls:
            for method, request in call.items():
                if method == "Session":
                    self._stream(request)
                    continue
                answer = self.call(method, self.filled(request))
                if isinstance(answer, kvblock_pb2.AttachEngineResponse):
                    self._epochs[request.get("engine", "default")] = answer.lease.epoch

    def filled(self, value: Json) -> Json:
        """A message of a vector, or facts of its error, with epochs in place of `$engine`.

        A request_id is this scene's own.
        """
        if isinstance(name := value.get("engine"), str) and re.fullmatch("[a-z]+", name):
            self._named.add(name)
        filled: Json = {key: self._filled(one) for key, one in value.items()}
        if re.fullmatch(r"r\d+", filled.get("request_id", "")):
            # The server remembers it from scene to scene.
            filled["request_id"] += f".{self._scenes}"
        return filled

    def call(self, method: str, request: Json) -> Message:
        """One unary call, which has to succeed."""
        request_class = message_factory.GetMessageClass(METHODS[method].input_type)
        answer = getattr(self._stubs, method)(json_format.ParseDict(request, request_class()))
        assert isinstance(answer, Message)
        return answer

    def _stream(self, messages: list[Json]) -> None:
        """A session whose stream ends when its messages are answered."""
        parsed = [
            json_format.ParseDict(self.filled(one), kvblock_pb2.SessionRequest())
            for one in messages
        ]
        attached, *_ = self._stubs.Session(iter(parsed))
        self._epochs[attached.attached.engine] = attached.attached.lease.epoch

    def stats(self) -> kvblock_pb2.StatsResponse:
        """The server's state, without how long leases last: that is never the same twice."""
        stats: kvblock_pb2.StatsResponse = self._stubs.Stats(kvblock_pb2.StatsRequest())
        for pool in stats.pools:
            for engine in pool.engines:
                engine.ClearField("lease_expires_in")
        return stats

    def audit(self) -> admin_pb2.AuditResponse:
        """Have everything recounted; nothing may be wrong."""
        answer: admin_pb2.AuditResponse = self._stubs.Audit(admin_pb2.AuditRequest())
        for report in answer.reports:
            assert report.clean, report
        return answer

    def streaming(self) -> list[str]:
        """The engines that have a stream."""
        request = admin_pb2.ListEnginesRequest(page_size=3)
        names = []
        while True:
            page = self._stubs.ListEngines(request)
            names += [one.engine for one in page.engines if one.has_stream]
            if not page.next_page_token:
                return names
            request.page_token = page.next_page_token

    @contextmanager
    def scene(self, case: Case) -> Iterator[None]:
        """What a vector wants to be there during its call; afterwards nothing is held."""
        self.empty()
        self._epochs = {}
        self._scenes += 1
        self.do(case.before)
        with ExitStack() as stack:
            for engine in case.attached:
                self._epochs[engine] = stack.enter_context(self._attached(engine))
            if case.waiting is not None:
                stack.enter_context(self._waiting(case.waiting))
            yield

    @contextmanager
    def _attached(self, engine: str) -> Iterator[int]:
        """An engine that has a session; gives its epoch."""
        raise NotImplementedError

    @contextmanager
    def _waiting(self, request: Json) -> Iterator[None]:
        message = json_format.ParseDict(request, kvblock_pb2.AllocateRequest())
        message.max_wait.seconds = LIMITS["max-wait-max"]
        call = self._stubs.Allocate.future(message)
        while not any(pool.waiting for pool in self.stats().pools):
            assert not call.done()
        yield
        call.cancel()

    def empty(self) -> None:
        """Free everything, so that every pool hands out 0, 1, 2, ... again."""
        # Streams and calls that were given up are noticed by and by.
        happens(lambda: not self.streaming() and not any(p.waiting for p in self.stats().pools))
        for pool in self.stats().pools:
            for engine in pool.engines:
                if engine.epoch:
                    where = {"pool": pool.pool, "engine": engine.engine}
                    self.call("DetachEngine", {**where, "epoch": engine.epoch})
                while rows := self._sequences(pool.pool, engine.engine):
                    ids = [row.sequence_id for row in rows]
                    self._step(pool.pool, engine.engine, free=ids)
                if engine.acquired_blocks and not engine.epoch:
                    # Their numbers are nobody's business here: quarantines last no time.
                    self.call("ReclaimEngine", {"pool": pool.pool, "engine": engine.engine})
        self._restore_pools()
        for pool in self.stats().pools:
            if pool.want_blocks or pool.idle_blocks:
                # What engines without a lease lack, who need hold nothing to be in want.
                for name in self._named:
                    self.call("Step", {"pool": pool.pool, "engine": name, "hints": {}})
            self._sort(pool.pool, pool.total_blocks)

    def _filled(self, value: object) -> object:
        if isinstance(value, dict):
            return self.filled(value)
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, str) and value.startswith("$"):
            return str(self._epochs[value[1:]])
        return value

    def _restore_pools(self) -> None:
        """Delete the pools that a vector made, and make anew those that it deleted."""
        if not self._pools:
            self._pools = {
                pool.pool: {
                    "pool": pool.pool,
                    "total_blocks": pool.total_blocks,
                    "block_size": pool.block_size,
                    "device_id": pool.device_id,
                    "quarantine": "0s",
                }
                for pool in self._stubs.ListPools(admin_pb2.ListPoolsRequest()).pools
            }
        there = {pool.pool for pool in self.stats().pools}
        for name in there - self._pools.keys():
            self.call("DeletePool", {"pool": name})
        for name in self._pools.keys() - there:
            self.call("CreatePool", self._pools[name])

    def _sort(self, pool: str, total: int) -> None:
        holders: dict[int, tuple[str, int]] = {}
        for engine in range(0, total, LIMITS["sequences-per-engine-max"]):
            ids = list(range(min(total - engine, LIMITS["sequences-per-engine-max"])))
            blocks = self._step(pool, f"sort-{engine}", allocate=ids).block_numbers
            holders |= {block: (f"sort-{engine}", one) for one, block in enumerate(blocks)}
        for block in sorted(holders, reverse=True):
            engine_name, sequence_id = holders[block]
            self._step(pool, engine_name, free=[sequence_id])

    def _sequences(self, pool: str, engine: str) -> list[admin_pb2.SequenceInfo]:
        request = admin_pb2.ListSequencesRequest(pool=pool, engine=engine, page_size=3)
        return list(self._stubs.ListSequences(request).sequences)

    def _step(
        self,
        pool: str,
        engine: str,
        free: list[int] | None = None,
        allocate: list[int] | None = None,
    ) -> kvblock_pb2.StepResult:
        step = kvblock_pb2.EngineStep(free_sequence_ids=free, allocate_sequence_ids=allocate)
        request = kvblock_pb2.StepRequest(pool=pool, engine=engine, step=step)
        result: kvblock_pb2.StepResult = self._stubs.Step(request).result
        return result


class Channel:
    """The stubs of both services on one channel."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self._of = (
            kvblock_pb2_grpc.KVBlockServiceStub(self.channel),
            admin_pb2_grpc.KVBlockAdminStub(self.channel),
        )

    def __getattr__(self, method: str) -> Any:
        return getattr(self._of[METHODS[method].containing_service is SERVICES[1]], method)


class ServerBench(Bench):
    """A bench with a server process."""

    def __init__(self, server: kvblock.EmbeddedServer) -> None:
        stubs = Channel(server.address)
        super().__init__(server.address, stubs)
        self.channel = stubs.channel
        self._process = server.process
        self._client = kvblock.connect(server.address)

    def wait_until_gone(self) -> int:
        """The exit code of the server, which something else has told to end."""
        return self._process.wait(timeout=60)

    def signal(self, name: str) -> None:
        """Send the server a signal."""
        os.kill(self._process.pid, signal.Signals[name])

    @contextmanager
    def resumed(self, engine: str) -> Iterator[None]:
        """A stream that resumes the lease which an engine has now."""
        (main,) = (pool for pool in self.stats().pools if pool.pool == "main")
        (epoch,) = (one.epoch for one in main.engines if one.engine == engine)
        session = self._client.session(engine=engine, epoch=epoch)
        session.attach()
        yield
        session.close()

    @contextmanager
    def _attached(self, engine: str) -> Iterator[int]:
        session = self._client.session(engine=engine)
        session.attach()
        yield session.epoch
        session.close()


@contextmanager
def bench(*arguments: str) -> Iterator[ServerBench]:
    """A bench with a server of its own."""
    with kvblock.EmbeddedServer(POOLS, [*ARGUMENTS, *arguments]) as server:
        yield ServerBench(server)
