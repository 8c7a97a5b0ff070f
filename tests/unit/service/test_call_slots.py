"""Which calls get a slot, which are evicted, and when."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kvblock_service.access.rejected_calls import Limit
from kvblock_service.rpc.call_slots import (
    RESERVED,
    CallLimitReached,
    CallSlots,
    first_message_arrived,
)

LONG = 3600.0


def this_task() -> "asyncio.Task[object]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def served(
    slots: CallSlots, request: Awaitable[str], then: Callable[[], Awaitable[str]] | None = None
) -> str:
    """One call, which answers its request or what comes of `then`; raises why it was evicted."""
    task = this_task()
    slots.enter(task, reserved=False)
    try:
        answer = await request
        slots.arrived(task)
        return await then() if then else answer
    except asyncio.CancelledError:
        raise slots.why_evicted(task) or asyncio.CancelledError from None
    finally:
        slots.leave(task)


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


def never() -> "asyncio.Future[str]":
    return asyncio.get_running_loop().create_future()


async def begun(work: Awaitable[str]) -> "asyncio.Future[str]":
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    return task


@in_loop
async def test_the_call_that_has_waited_longest_for_its_request_is_evicted() -> None:
    slots = CallSlots(2, LONG)
    first = await begun(served(slots, never()))
    second = await begun(served(slots, never()))
    third = await begun(served(slots, never()))
    with pytest.raises(CallLimitReached, match="concurrent_calls_max = 2 is reached") as caught:
        await first
    assert caught.value.limit is Limit.CALLS
    assert not second.done()
    assert not third.done()
    assert slots.in_use == 2
    second.cancel()
    third.cancel()
    await asyncio.wait({second, third})
    assert slots.in_use == 0


@in_loop
async def test_a_call_whose_request_has_arrived_is_not_evicted() -> None:
    slots = CallSlots(1, LONG)
    request = never()
    request.set_result("request")
    call = await begun(served(slots, request, never))
    with pytest.raises(CallLimitReached, match="concurrent_calls_max = 1 is reached"):
        slots.enter(this_task(), reserved=False)
    for in_use in range(1, 1 + RESERVED):
        assert slots.in_use == in_use
        slots.enter(this_task(), reserved=True)
        slots.arrived(this_task())
    with pytest.raises(CallLimitReached):
        slots.enter(this_task(), reserved=True)
    call.cancel()
    await asyncio.wait({call})
    assert slots.in_use == RESERVED


@in_loop
async def test_a_stream_may_be_evicted_until_its_first_message_has_arrived() -> None:
    slots = CallSlots(1, LONG)

    async def stream(message: "asyncio.Future[str]") -> str:
        slots.begin_stream(this_task())
        answer = await message
        first_message_arrived()
        await never()
        return answer

    silent = await begun(served(slots, stream(never())))
    message = never()
    message.set_result("attach")
    other = await begun(served(slots, stream(message)))
    with pytest.raises(CallLimitReached):
        await silent
    await asyncio.sleep(0)
    with pytest.raises(CallLimitReached):
        slots.enter(this_task(), reserved=False)
    other.cancel()
    await asyncio.wait({other})
    assert other.cancelled()


@in_loop
async def test_a_request_has_to_arrive_in_time() -> None:
    slots = CallSlots(8, 0.02)
    late = await begun(served(slots, never()))
    with pytest.raises(CallLimitReached, match=r"request_seconds = 0\.02") as caught:
        await late
    assert caught.value.limit is Limit.REQUEST
    assert slots.in_use == 0


@in_loop
async def test_a_cancellation_of_the_call_is_no_limit() -> None:
    slots = CallSlots(8, LONG)
    call = await begun(served(slots, never()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert slots.in_use == 0
