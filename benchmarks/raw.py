"""The gRPC client of the benchmarks: bytes out, bytes in, the same for the echo and for ours.

Rules:
- One channel per server, one thread, one call at a time; answers are parsed after the clock has
  stopped, and only the last one of a slice.
- Streams and channels are closed by whoever opened them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from time import perf_counter_ns
from typing import Any, Generic, TypeVar, cast

import grpc

from benchmarks.context import NO_ACCESS, Access
from benchmarks.interleave import Comparison, Plan, RequestT, Tick, interleave
from benchmarks.workload import BenchError, StepBytes, check, check_freed
from kvblock.address import target_of
from kvblock.credentials import Credentials
from kvblock.v1 import kvblock_pb2 as pb

AnswerT = TypeVar("AnswerT")

Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream = grpc.aio.StreamStreamCall[bytes, bytes]

_SERVICE = "/kvblock.v1.KVBlockService/"


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


class Calls(Generic[RequestT, AnswerT]):
    """A subject: one call per request; `last_answer` is the last one's."""

    last_answer: AnswerT

    def __init__(
        self,
        call: Callable[[RequestT], Awaitable[AnswerT]],
        verify: Callable[[AnswerT], None] = lambda _: None,
    ) -> None:
        self._call = call
        self._verify = verify

    async def run(self, requests: Sequence[RequestT]) -> list[int]:
        """Make the calls."""
        call = self._call
        took = []
        for request in requests:
            started = perf_counter_ns()
            answer = await call(request)
            took.append(perf_counter_ns() - started)
        self._verify(answer)
        self.last_answer = answer
        return took


BytesCalls = Calls[bytes, bytes]


def paired_calls(
    first: Unary, second: Unary, verify: Callable[[bytes], None] = lambda _: None
) -> Calls[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """A subject: two unary calls per request, one after the other; a pair's time is one number."""

    async def pair(requests: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        return await first(requests[0]), await second(requests[1])

    return Calls(pair, lambda answers: verify(answers[1]))


class Pick:
    """A subject that takes one of each request's parts, for one that differs from the others."""

    def __init__(self, index: int, calls: BytesCalls) -> None:
        self._index = index
        self._calls = calls

    async def run(self, requests: Sequence[Sequence[bytes]]) -> list[int]:
        """Make the calls."""
        return await self._calls.run([parts[self._index] for parts in requests])


async def _exchange(call: Stream, data: bytes) -> bytes:
    """One message on a stream, and its answer."""
    await call.write(data)
    answer = await call.read()
    if not isinstance(answer, bytes):
        raise BenchError(f"the stream has ended: {await call.details()}")
    return answer


@asynccontextmanager
async def session(
    channel: grpc.aio.Channel,
    pool: str,
    engine: str,
    size: int,
    verify: Callable[[pb.StepResult, int], None] = check,
) -> AsyncIterator[BytesCalls]:
    """A session of ours whose steps have `size` sequences; leaving it frees what it holds.

    `verify` demands of the last answer of a slice that it was served.
    """
    call: Stream = channel.stream_stream(f"{_SERVICE}Session")()
    attach = pb.SessionRequest(attach=pb.SessionAttach(pool=pool, engine=engine))
    detach = pb.SessionRequest(detach=pb.SessionDetach())
    try:
        await call.write(attach.SerializeToString())
        if not isinstance(await call.read(), bytes):
            raise BenchError(f"cannot attach engine {engine!r}: {await call.details()}")
        try:
            yield Calls(partial(_exchange, call), lambda data: verify(stepped(data), size))
        finally:
            if not call.done():
                await call.write(detach.SerializeToString())
                await call.read()
    finally:
        call.cancel()


@asynccontextmanager
async def echo_stream(channel: grpc.aio.Channel, answer: bytes) -> AsyncIterator[BytesCalls]:
    """A stream of the echo server that answers each message by `answer`."""
    call: Stream = channel.stream_stream("/stream/answer")()
    try:
        await call.write(answer)
        yield Calls(partial(_exchange, call))
    finally:
        call.cancel()


@asynccontextmanager
async def steps(
    channel: grpc.aio.Channel, requests: StepBytes, size: int
) -> AsyncIterator[BytesCalls]:
    """Our Step method, for steps of `size` sequences; leaving it frees what they hold."""
    call: Unary = channel.unary_unary(f"{_SERVICE}Step")
    try:
        yield Calls(call, lambda data: check(pb.StepResponse.FromString(data).result, size))
    finally:
        await call(requests.last())


async def compare(
    channels: Mapping[str, grpc.aio.Channel],
    pool: str,
    size: int,
    plan: Plan,
    tick: Tick = lambda _: None,
    *,
    unary: bool = False,
) -> Comparison:
    """Compare servers by the same steps of `size` sequences, in sessions or as unary calls."""
    requests = StepBytes(size, pool, "bench")
    async with AsyncExitStack() as stack:
        subjects = {}
        for name, channel in channels.items():
            one = steps(channel, requests, size) if unary else session(channel, pool, "bench", size)
            subjects[name] = await stack.enter_async_context(one)
        return await interleave(subjects, requests.unary if unary else requests.session, plan, tick)


async def attach(channel: grpc.aio.Channel, pool: str, engine: str) -> int:
    """Give an engine a lease of an hour; answers its epoch."""
    request = pb.AttachEngineRequest(pool=pool, engine=engine, takeover=True)
    request.ttl.seconds = 3600
    call: Unary = channel.unary_unary(f"{_SERVICE}AttachEngine")
    answer = pb.AttachEngineResponse.FromString(await call(request.SerializeToString()))
    return answer.lease.epoch


async def detach(channel: grpc.aio.Channel, pool: str, engine: str, epoch: int) -> None:
    """End an engine's lease."""
    request = pb.DetachEngineRequest(pool=pool, engine=engine, epoch=epoch)
    call: Unary = channel.unary_unary(f"{_SERVICE}DetachEngine")
    await call(request.SerializeToString())


def allocate_and_free(
    channel: grpc.aio.Channel,
) -> Calls[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Our Allocate and the FreeReturningCount that follows it."""
    allocate: Unary = channel.unary_unary(f"{_SERVICE}Allocate")
    return paired_calls(allocate, channel.unary_unary(f"{_SERVICE}FreeReturningCount"), check_freed)


async def echo_method(channel: grpc.aio.Channel, name: str, answer: bytes) -> Unary:
    """A unary method of the echo server that answers each call by `answer`."""
    remember: Unary = channel.unary_unary(f"/remember/{name}")
    await remember(answer)
    return channel.unary_unary(f"/answer/{name}")


def stepped(data: bytes) -> pb.StepResult:
    """The result in the answer to a session's step."""
    return pb.SessionResponse.FromString(data).stepped.result
