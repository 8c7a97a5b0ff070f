"""What is sent unasked of what an engine owes: the newest number, to slow readers late."""

import asyncio

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Detach,
    Expire,
    StepPolicy,
)
from kvblock_service.core.demand import SILENT_MS
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.core.recall import Hints
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc.recall_push import RecallPush
from tests.commands import allocate, step

TOTAL = 10


class Clock:
    """A clock that a test moves."""

    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


class Socket:
    """A stream whose reader is slow: a write ends when `room` says that there is room."""

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.room.set()
        self.begun = 0
        self.sent: list[int | str] = []

    async def write(self, data: bytes) -> None:
        self.begun += 1
        assert self.begun == len(self.sent) + 1, "a message was begun in the middle of another one"
        await self.room.wait()
        message = pb.SessionResponse.FromString(data)
        kind = message.WhichOneof("message")
        self.sent.append(message.recall.owed_blocks if kind == "recall" else str(kind))


def pool_host(clock: Clock) -> PoolHost:
    host = PoolHost(Pool(Geometry("main", TOTAL, 16, 0), Bounds(4, 64, 8)), 8, now_ms=clock)
    host.apply(allocate("donor", 1, TOTAL))
    host.recall.answer("donor", Hints(0, 8), None)
    return host


def attach(host: PoolHost, engine: str) -> int:
    """The epoch of a new lease."""
    attached, _ = host.apply(Attach(engine, 0, "", False, 5000, 5000))
    assert isinstance(attached, Attached)
    return attached.epoch


def wants(host: PoolHost, blocks: int, engine: str = "poor") -> None:
    host.recall.answer(engine, Hints(blocks, 0), None)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


ANSWER = pb.SessionResponse(stepped=pb.SessionStepped(step_id=1)).SerializeToString()


def test_slow_reader_gets_the_newest_number_and_holds_up_nobody() -> None:
    async def scenario() -> None:
        host, socket = pool_host(Clock()), Socket()
        push = RecallPush(host.recall, "donor", socket.write)
        await settle()
        assert socket.sent == []
        socket.room.clear()
        wants(host, 1)
        await settle()
        for blocks in (2, 3, 4):
            wants(host, blocks)
            await settle()
        assert socket.begun == 1
        socket.room.set()
        await settle()
        assert socket.sent == [1, 4]
        push.end()

    asyncio.run(scenario())


def test_answer_and_push_are_sent_one_after_the_other() -> None:
    async def scenario() -> None:
        host, socket = pool_host(Clock()), Socket()
        push = RecallPush(host.recall, "donor", socket.write)
        socket.room.clear()
        answered = asyncio.create_task(push.answer(ANSWER, 0))
        await settle()
        wants(host, 5)
        await settle()
        assert socket.begun == 1
        socket.room.set()
        await answered
        await settle()
        assert socket.sent == ["stepped", 5]
        # An answer that was made before the push was sent says what was right then.
        await push.answer(ANSWER, 0)
        await settle()
        assert socket.sent == ["stepped", 5, "stepped", 5]
        # One that says the same as the last push is followed by none.
        await push.answer(ANSWER, 5)
        await settle()
        assert socket.sent[4:] == ["stepped"]
        push.is_over = True
        wants(host, 0)
        await settle()
        assert len(socket.sent) == 5
        push.end()
        wants(host, 3)
        await settle()
        assert len(socket.sent) == 5

    asyncio.run(scenario())


def test_many_commands_in_one_turn_are_looked_at_once() -> None:
    async def scenario() -> None:
        host, socket = pool_host(Clock()), Socket()
        push = RecallPush(host.recall, "donor", socket.write)
        for blocks in range(1, 8):
            wants(host, blocks)
        await settle()
        assert socket.sent == [7]
        push.end()

    asyncio.run(scenario())


def test_time_ends_what_an_engine_without_a_lease_has_said() -> None:
    async def scenario() -> None:
        clock = Clock()
        host, socket = pool_host(clock), Socket()
        push = RecallPush(host.recall, "donor", socket.write)
        host.apply(step("poor", [], [1, 2], [], StepPolicy.ALL_OR_NOTHING))
        await settle()
        assert socket.sent == [2]
        clock.now_ms += SILENT_MS - 1
        host.recall.answer("donor", Hints(0, 8), None)
        host.recall.changed()
        await settle()
        assert socket.sent == [2]
        clock.now_ms += 1
        host.recall.changed()
        await settle()
        assert socket.sent == [2, 0]
        assert not host.recall.demands.lacking
        push.end()

    asyncio.run(scenario())


def test_quarantine_that_ends_soon_is_supply() -> None:
    clock = Clock()
    host = PoolHost(Pool(Geometry("main", TOTAL, 16, 0), Bounds(4, 64, 8)), 8, now_ms=clock)
    epoch = attach(host, "gone")
    host.apply(Allocate("gone", epoch, "", 1, 4))
    host.apply(allocate("donor", 1, 6))
    host.recall.answer("donor", Hints(0, 6), None)
    host.apply(Expire("gone", epoch, 5000))
    wants(host, 5)
    assert host.recall.owed("donor") == 5
    clock.now_ms += 4000
    assert host.recall.owed("donor") == 1


def test_repeated_detach_ends_nothing_of_the_lease_after_it() -> None:
    host = pool_host(Clock())
    detach = Detach("poor", attach(host, "poor"), "once")
    host.apply(detach)
    attach(host, "poor")
    wants(host, 3)
    assert host.apply(detach)[1]
    assert host.recall.owed("donor") == 3


def test_names_without_a_lease_take_no_more_room_than_engines_do() -> None:
    clock = Clock()
    host = pool_host(clock)
    for at in range(20):
        wants(host, 1, f"e{at}")
    assert list(host.recall.demands.engines) == ["donor", "e0", "e1", "e2"]
    clock.now_ms += SILENT_MS
    wants(host, 1, "late")
    assert list(host.recall.demands.engines) == ["late"]


def test_what_can_never_be_granted_is_no_demand() -> None:
    host = pool_host(Clock())
    host.apply(allocate("poor", 1, TOTAL + 1))
    assert not host.recall.demands.lacking
    wants(host, 10**6)
    assert host.state().want_blocks == TOTAL
    (engine,) = host.state().engines
    assert (engine.want_blocks, engine.idle_blocks, engine.owed_blocks) == (0, 8, 8)
