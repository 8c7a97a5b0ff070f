"""The gRPC client of the benchmarks: bytes out, bytes in, the same for the echo and for ours.

Rules:
- One channel per server, one thread, one call at a time; answers are parsed after the clock has
  stopped, and only the last one of a slice.
- Streams and channels are closed by whoever opened them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

import grpc

from benchmarks.context import NO_ACCESS, Access
from benchmarks.workload import BenchError, StepBytes, check
from kvblock.address import target_of
from kvblock.credentials import Credentials
from kvblock.v1 import kvblock_pb2 as pb

Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]

STEP = "/kvblock.v1.KVBlockService/Step"
ALLOCATE = "/kvblock.v1.KVBlockService/Allocate"
FREE = "/kvblock.v1.KVBlockService/FreeReturningCount"
ATTACH = "/kvblock.v1.KVBlockService/AttachEngine"
DETACH = "/kvblock.v1.KVBlockService/DetachEngine"
SESSION = "/kvblock.v1.KVBlockService/Session"


@asynccontextmanager
async def open_channel(address: str, access: Access = NO_ACCESS) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that takes answers of any length."""
    credentials = Credentials.of(address, access.token, access.tls)
    target = target_of(address)
    options = (("grpc.max_receive_message_length", -1), *credentials.options)
    if credentials.channel is None:
        channel = grpc.aio.insecure_channel(target, options)
    else:
        channel = grpc.aio.secure_channel(target, credentials.channel, options)
    async with channel:
        if credentials.metadata is None:
            yield channel
        else:
            yield cast(grpc.aio.Channel, _WithToken(channel, credentials.metadata))


class _WithToken:
    """A channel whose calls carry a token; as little else as can be, since it is measured."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata

    def unary_unary(self, path: str) -> Callable[[bytes], Any]:
        return partial(self._channel.unary_unary(path), metadata=self._metadata)

    def stream_stream(self, path: str) -> Callable[[], Any]:
        return partial(self._channel.stream_stream(path), metadata=self._metadata)


class UnaryCalls:
    """A subject: one unary call per request; `last_answer` is the last one's."""

    def __init__(self, call: Unary, verify: Callable[[bytes], None] = lambda _: None) -> None:
        self._call = call
        self._verify = verify
        self.last_answer = b""

    async def run(self, requests: Sequence[bytes]) -> list[int]:
        """Make the calls."""
        call = self._call
        took = []
        answer = b""
        for data in requests:
            started = perf_counter_ns()
            answer = await call(data)
            took.append(perf_counter_ns() - started)
        self._verify(answer)
        self.last_answer = answer
        return took


class PairedCalls:
    """A subject: two unary calls per request, one after the other."""

    def __init__(
        self, first: Unary, second: Unary, verify: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._first = first
        self._second = second
        self._verify = verify
        self.last_answers = (b"", b"")

    async def run(self, requests: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Make the calls; a pair's time is one number."""
        first, second = self._first, self._second
        took = []
        answers = (b"", b"")
        for one, other in requests:
            started = perf_counter_ns()
            answers = (await first(one), await second(other))
            took.append(perf_counter_ns() - started)
        self._verify(answers[1])
        self.last_answers = answers
        return took


class Pick:
    """A subject that takes one of each request's parts, for one that differs from the others."""

    def __init__(self, index: int, calls: UnaryCalls) -> None:
        self._index = index
        self._calls = calls

    async def run(self, requests: Sequence[Sequence[bytes]]) -> list[int]:
        """Make the calls."""
        return await self._calls.run([parts[self._index] for parts in requests])


class StreamCalls:
    """A subject: one message on a stream per request, each answered before the next."""

    def __init__(self, call: Stream, verify: Callable[[bytes], None] = lambda _: None) -> None:
        self._call = call
        self._verify = verify
        self.last_answer = b""

    async def run(self, requests: Sequence[bytes]) -> list[int]:
        """Exchange the messages."""
        write, read = self._call.write, self._call.read
        took = []
        answer: object = b""
        for data in requests:
            started = perf_counter_ns()
            await write(data)
            answer = await read()
            took.append(perf_counter_ns() - started)
        if not isinstance(answer, bytes):
            raise BenchError(f"the stream has ended: {await self._call.details()}")
        self._verify(answer)
        self.last_answer = answer
        return took


@asynccontextmanager
async def session(
    channel: grpc.aio.Channel, pool: str, engine: str, size: int
) -> AsyncIterator[StreamCalls]:
    """A session of ours whose steps have `size` sequences; leaving it frees what it holds."""
    call: Stream = channel.stream_stream(SESSION)()
    attach = pb.SessionRequest(attach=pb.SessionAttach(pool=pool, engine=engine))
    detach = pb.SessionRequest(detach=pb.SessionDetach())
    try:
        await call.write(attach.SerializeToString())
        if not isinstance(await call.read(), bytes):
            raise BenchError(f"cannot attach engine {engine!r}: {await call.details()}")
        try:
            yield StreamCalls(call, lambda data: check(stepped(data), size))
        finally:
            if not call.done():
                await call.write(detach.SerializeToString())
                await call.read()
    finally:
        call.cancel()


@asynccontextmanager
async def echo_stream(channel: grpc.aio.Channel, answer: bytes) -> AsyncIterator[StreamCalls]:
    """A stream of the echo server that answers each message by `answer`."""
    call: Stream = channel.stream_stream("/stream/answer")()
    try:
        await call.write(answer)
        yield StreamCalls(call)
    finally:
        call.cancel()


@asynccontextmanager
async def steps(
    channel: grpc.aio.Channel, requests: StepBytes, size: int
) -> AsyncIterator[UnaryCalls]:
    """Our Step method, for steps of `size` sequences; leaving it frees what they hold."""
    call: Unary = channel.unary_unary(STEP)
    try:
        yield UnaryCalls(call, lambda data: check(pb.StepResponse.FromString(data).result, size))
    finally:
        await call(requests.last())


async def attach(channel: grpc.aio.Channel, pool: str, engine: str) -> int:
    """Give an engine a lease of an hour; answers its epoch."""
    request = pb.AttachEngineRequest(pool=pool, engine=engine, takeover=True)
    request.ttl.seconds = 3600
    call: Unary = channel.unary_unary(ATTACH)
    answer = pb.AttachEngineResponse.FromString(await call(request.SerializeToString()))
    return answer.lease.epoch


async def detach(channel: grpc.aio.Channel, pool: str, engine: str, epoch: int) -> None:
    """End an engine's lease."""
    request = pb.DetachEngineRequest(pool=pool, engine=engine, epoch=epoch)
    call: Unary = channel.unary_unary(DETACH)
    await call(request.SerializeToString())


async def echo_method(channel: grpc.aio.Channel, name: str, answer: bytes) -> Unary:
    """A unary method of the echo server that answers each call by `answer`."""
    remember: Unary = channel.unary_unary(f"/remember/{name}")
    await remember(answer)
    return channel.unary_unary(f"/answer/{name}")


def stepped(data: bytes) -> pb.StepResult:
    """The result in the answer to a session's step."""
    return pb.SessionResponse.FromString(data).stepped.result
