"""Callers that go on until the server is gone, each telling how its last call ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import kvblock
from kvblock import AsyncClient, KVBlockError
from kvblock.failures import error_of
from kvblock.v1 import kvblock_pb2 as pb

PATIENCE = 60.0
SESSION = "/kvblock.v1.KVBlockService/Session"


class Progress:
    """Lets a test wait until the callers together have done so much."""

    def __init__(self) -> None:
        self._done = 0
        self._goal = 0
        self._reached = asyncio.Event()

    def count(self) -> None:
        """Something was done."""
        self._done += 1
        if self._done >= self._goal:
            self._reached.set()

    async def reach(self, more: int) -> None:
        """Wait until so much more is done."""
        self._goal = self._done + more
        self._reached.clear()
        await self._reached.wait()


async def last_error(calls: AsyncIterator[None], progress: Progress) -> KVBlockError:
    """Run calls until one fails."""
    try:
        async for _ in calls:
            progress.count()
    except KVBlockError as error:
        return error
    raise AssertionError("these calls never end by themselves")


async def steps(kv: AsyncClient, random: Random) -> AsyncIterator[None]:
    """A session's steps, without a pause."""
    session = kv.session()
    await session.attach()
    here: list[int] = []
    number = 0
    while True:
        number += 8
        new = list(range(number, number + random.randrange(8)))
        result = await session.step(free=here, allocate=new)
        here = new[: result.granted]
        yield


async def unary_calls(kv: AsyncClient, random: Random) -> AsyncIterator[None]:
    """Calls of every kind, without a pause."""
    kinds: list[Callable[[], Awaitable[Any]]] = [
        lambda: kv.allocate(random.randrange(4)),
        lambda: kv.free_returning_count(random.randrange(4)),
        lambda: kv.step(free=[1], allocate=[2, 3]),
        lambda: kv.can_allocate(2),
        kv.stats,
        kv.audit,
    ]
    while True:
        await random.choice(kinds)()
        yield


async def watch(address: str, seen: list[int], progress: Progress) -> KVBlockError:
    """Follow the server's health; `seen` gets each state."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE):
                seen.append(answer.status)
                progress.count()
        except grpc.aio.AioRpcError as error:
            return error_of(error, address)
    raise AssertionError("the server ended a Watch as if all was done")


async def silence(address: str, engine: str | None, progress: Progress) -> KVBlockError:
    """A session that says nothing: after its attach, or (no engine) from the start."""
    async with grpc.aio.insecure_channel(address) as channel:
        generic: Any = channel
        call = generic.stream_stream(SESSION)(timeout=PATIENCE)
        try:
            if engine is not None:
                attach = pb.SessionRequest(attach=pb.SessionAttach(engine=engine))
                await call.write(attach.SerializeToString())
                await call.read()
            else:
                # Answered after the server has heard of the stream, on the same connection.
                await generic.unary_unary("/kvblock.v1.KVBlockService/Stats")(b"")
            progress.count()
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error_of(error, address)
    raise AssertionError("the server ended a session as if all was done")


async def reflect(address: str, progress: Progress) -> KVBlockError:
    """A reflection stream that is left open after its first answer."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(grpc.Channel, channel))
        call = stub.ServerReflectionInfo(timeout=PATIENCE)
        try:
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await call.read()
            progress.count()
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error_of(error, address)
    raise AssertionError("the server ended a reflection stream as if all was done")


@asynccontextmanager
async def choking(address: str) -> AsyncIterator[None]:
    """A session whose engine does not read the answer, which is too long to be sent unread."""
    async with connect(address, "choking") as kv, grpc.aio.insecure_channel(address) as channel:
        generic: Any = channel
        call = generic.stream_stream(SESSION)(timeout=PATIENCE)
        attach = pb.SessionRequest(attach=pb.SessionAttach(engine="choking"))
        await call.write(attach.SerializeToString())
        work = pb.EngineStep(allocate_sequence_ids=[1], allocate_num_blocks=[1_000_000])
        step = pb.SessionRequest(step=pb.SessionStep(step_id=1, step=work))
        await call.write(step.SerializeToString())
        while not (await kv.stats()).pools[0].held_blocks:
            pass
        yield
        call.cancel()


def connect(address: str, engine: str) -> AsyncClient:
    """A client whose calls wait long enough for a busy machine."""
    return kvblock.connect_async(address, engine=engine, timeout=PATIENCE, retries=False)
