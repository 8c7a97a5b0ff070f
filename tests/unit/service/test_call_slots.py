"""Which calls get a slot, which are evicted, and when."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import pytest

from kvblock_service.access import RejectedCalls
from kvblock_service.access.rejected_calls import Limit
from kvblock_service.rpc.admission import Admission
from kvblock_service.rpc.call_slots import RESERVED, CallSlots

LONG = 3600.0
STEP, RENEW = "/kvblock.v1.KVBlockService/Step", "/kvblock.v1.KVBlockService/RenewLease"


class Aborted(Exception):
    """The status that a call ended with."""


class Context:
    """What gRPC gives a handler, of which the request comes when it comes."""

    def __init__(self, request: Awaitable[str]) -> None:
        self._request = request

    def peer(self) -> str:
        return "unix:"

    async def read(self) -> str:
        return await self._request

    async def abort(self, _: object, text: str, trailers: object) -> None:
        assert ("kvblock-then", "repeat") in cast("Any", trailers)
        raise Aborted(text)


class Server:
    """Calls behind the admission; `limits` counts those that one has ended."""

    def __init__(self, calls_max: int, request_seconds: float) -> None:
        self.slots = CallSlots(calls_max, request_seconds)
        self.limits = RejectedCalls().limits
        self._admission = Admission(self.slots, None, self.limits)

    async def call(
        self,
        request: Awaitable[str],
        then: Callable[[], Awaitable[str]] | None = None,
        method: str = STEP,
    ) -> str:
        """A call, which answers its request or what comes of `then`."""

        async def serve(data: str, _: object) -> str:
            return await then() if then else data

        handler: Any = grpc.unary_unary_rpc_method_handler(serve)
        behaviour: Any = self._admission.wrap(method, handler).stream_unary
        answer: str = await behaviour(None, Context(request))
        return answer

    async def stream(self, message: "asyncio.Future[str]") -> None:
        """A stream, which goes on after its first message."""

        async def messages() -> AsyncIterator[str]:
            yield await message
            await never()

        async def serve(requests: AsyncIterator[str], _: object) -> None:
            async for _ in requests:
                pass

        handler: Any = grpc.stream_stream_rpc_method_handler(serve)
        behaviour: Any = self._admission.wrap(STEP, handler).stream_stream
        await behaviour(messages(), Context(message))


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


def never() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


def arrived(text: str) -> "asyncio.Future[str]":
    future = never()
    future.set_result(text)
    return future


async def begun(work: Awaitable[Any]) -> "asyncio.Future[Any]":
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


@in_loop
async def test_the_call_that_has_waited_longest_for_its_request_is_evicted() -> None:
    server = Server(2, LONG)
    first, second, third = [await begun(server.call(never())) for _ in range(3)]
    with pytest.raises(Aborted, match="concurrent_calls_max = 2 is reached"):
        await first
    assert server.limits.counts[Limit.CALLS] == 1
    assert not second.done()
    assert not third.done()
    assert server.slots.in_use == 2
    second.cancel()
    third.cancel()
    await asyncio.wait({second, third})
    assert server.slots.in_use == 0


@in_loop
async def test_a_call_whose_request_has_arrived_is_not_evicted() -> None:
    server = Server(1, LONG)
    calls = [await begun(server.call(arrived("request"), never))]
    with pytest.raises(Aborted, match="concurrent_calls_max = 1 is reached"):
        await server.call(arrived("request"))
    for in_use in range(1, 1 + RESERVED):
        assert server.slots.in_use == in_use
        calls.append(await begun(server.call(arrived("request"), never, RENEW)))
    with pytest.raises(Aborted):
        await server.call(arrived("request"), never, RENEW)
    calls[0].cancel()
    await asyncio.wait({calls[0]})
    assert server.slots.in_use == RESERVED
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert server.slots.in_use == 0


@in_loop
async def test_a_stream_may_be_evicted_until_its_first_message_has_arrived() -> None:
    server = Server(1, LONG)
    silent = await begun(server.stream(never()))
    other = await begun(server.stream(arrived("attach")))
    with pytest.raises(Aborted):
        await silent
    await asyncio.sleep(0)
    with pytest.raises(Aborted):
        await server.call(never())
    other.cancel()
    await asyncio.wait({other})
    assert other.cancelled()


@in_loop
async def test_a_request_has_to_arrive_in_time() -> None:
    server = Server(8, 0.02)
    with pytest.raises(Aborted, match=r"request_seconds = 0\.02"):
        await server.call(never())
    assert server.limits.counts[Limit.REQUEST] == 1
    assert server.slots.in_use == 0


@in_loop
async def test_a_cancellation_of_the_call_is_no_limit() -> None:
    server = Server(8, LONG)
    call = await begun(server.call(never()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert server.slots.in_use == 0
