"""Who gets a place, who gives way, and when."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kvblock_service.access.failures import Limit
from kvblock_service.rpc.room import SPARE, Room, TurnedOut, first_message_arrived

LONG = 3600.0


async def served(room: Room, request: Awaitable[str], *, spare: bool = False) -> str:
    """One call, which answers its request."""
    with room.place(spare=spare) as place:
        return await place.request(request)


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
async def test_the_call_that_has_waited_longest_for_its_request_gives_way() -> None:
    room = Room(2, LONG)
    first = await begun(served(room, never()))
    second = await begun(served(room, never()))
    third = await begun(served(room, never()))
    with pytest.raises(TurnedOut, match="concurrent_calls_max = 2 is reached") as caught:
        await first
    assert caught.value.limit is Limit.CALLS
    assert not second.done()
    assert not third.done()
    assert room.taken == 2
    second.cancel()
    third.cancel()
    await asyncio.wait({second, third})
    assert room.taken == 0


@in_loop
async def test_a_call_whose_request_has_arrived_does_not_give_way() -> None:
    room = Room(1, LONG)
    with room.place(spare=False) as place:
        request = never()
        request.set_result("request")
        assert await place.request(request) == "request"
        with pytest.raises(TurnedOut, match="concurrent_calls_max = 1 is reached"):
            room.place(spare=False)
        for taken in range(1, 1 + SPARE):
            assert room.taken == taken
            room.place(spare=True).__enter__()
        with pytest.raises(TurnedOut):
            room.place(spare=True)


@in_loop
async def test_a_stream_gives_way_until_its_first_message_has_arrived() -> None:
    room = Room(1, LONG)

    async def stream(message: "asyncio.Future[str]") -> str:
        with room.place(spare=False) as place:
            place.begin_stream()
            answer = await message
            first_message_arrived()
            await never()
            return answer

    silent = await begun(stream(never()))
    message = never()
    message.set_result("attach")
    other = await begun(stream(message))
    with pytest.raises(TurnedOut):
        await silent
    await asyncio.sleep(0)
    with pytest.raises(TurnedOut):
        room.place(spare=False)
    other.cancel()
    await asyncio.wait({other})
    assert other.cancelled()


@in_loop
async def test_a_request_has_to_arrive_in_time() -> None:
    room = Room(8, 0.02)
    late = await begun(served(room, never()))
    with pytest.raises(TurnedOut, match=r"request_seconds = 0\.02") as caught:
        await late
    assert caught.value.limit is Limit.REQUEST
    assert room.taken == 0


@in_loop
async def test_a_cancellation_of_the_call_is_none_of_the_room() -> None:
    room = Room(8, LONG)
    call = await begun(served(room, never()))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert room.taken == 0
