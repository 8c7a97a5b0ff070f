"""Group commit: what is written when, and what happens while nothing can be written."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from kvblock_service.committer import Committer, JournalBroken
from kvblock_service.core.commands import (
    Attach,
    Attached,
    Command,
    Freed,
    Granted,
    Reclaim,
    Renew,
    Renewed,
    Stamp,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.errors import JournalUnwritable, StaleEpoch
from kvblock_service.journal.interface import JournalError, PositionTaken
from kvblock_service.pool_host import PoolHost
from tests.commands import allocate, free
from tests.memory_journal import MemoryJournal


class Shelf(MemoryJournal):
    """A journal that remembers its writes, and fails as long as it is told to."""

    def __init__(self, *, synced: bool = False) -> None:
        super().__init__(synced=synced)
        self.writes: list[list[bytes]] = []
        self.problem = ""
        self.broken: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def append(self, after: int, records: Sequence[bytes]) -> int:
        assert self.open.wait(60)
        if self.problem:
            raise JournalError(self.problem)
        if self.broken:
            raise self.broken
        position = super().append(after, records)
        self.writes.append(list(records))
        return position

    @property
    def records(self) -> list[bytes]:
        return [record for write in self.writes for record in write]


def encode(pool: str, _: Stamp, command: Command) -> bytes:
    return f"{pool} {type(command).__name__} {command[-2]}".encode()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def hosted(shelf: Shelf) -> PoolHost:
    pool = Pool(Geometry("main", 4, 16, 0), Bounds(8, 8, 8))
    return PoolHost(pool, 8, None, Committer(shelf), encode=encode)


async def written(host: PoolHost) -> None:
    """Wait until what was carried out is in the journal, as a client does that tries again."""
    while True:
        try:
            return await host.settled()
        except JournalUnwritable:
            await asyncio.sleep(0.01)


async def add(committer: Committer, shelf: Shelf, record: bytes) -> None:
    committer.add(record)
    await committer.settled()
    assert record in shelf.records


def test_records_of_one_turn_are_written_together_and_in_order_when_a_disk_is_waited_for() -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=True)
        committer = Committer(shelf)
        await asyncio.gather(*(add(committer, shelf, b"%d" % n) for n in range(5)))
        assert shelf.writes == [[b"0", b"1", b"2", b"3", b"4"]]
        await add(committer, shelf, b"5")
        assert shelf.writes[1:] == [[b"5"]]

    run(scenario())


def test_records_wait_for_company_while_the_journal_is_busy() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        # Each write takes 10 ns, so the journal is busy until 30 ns after one.
        clock = iter([100, 200, 210, 239, 300, 310, 340, 400, 410])
        committer = Committer(shelf, clock.__next__)
        committer.add(b"alone")
        assert shelf.writes == [[b"alone"]]
        await asyncio.gather(*(add(committer, shelf, b"%d" % n) for n in range(3)))
        assert shelf.writes[1:] == [[b"0", b"1", b"2"]]
        committer.add(b"late enough")
        assert shelf.writes[2:] == [[b"late enough"]]
        assert next(clock, None) is None

    run(scenario())


def test_a_record_that_cannot_be_written_at_once_is_kept() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        committer = Committer(shelf)
        shelf.problem = "No space left on device"
        committer.add(b"1")
        with pytest.raises(JournalUnwritable, match="No space left"):
            await committer.settled()
        with pytest.raises(JournalUnwritable, match="No space left"):
            committer.refuse_when_failing()
        assert shelf.records == []

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_what_follows_a_record_is_called_when_it_is_written(waits: bool) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        committer = Committer(shelf)
        told: list[tuple[str, int]] = []

        def follow(name: str) -> None:
            committer.when_written(lambda: told.append((name, len(shelf.records))))

        follow("nothing")
        assert told == [("nothing", 0)]
        shelf.problem = "No space left on device"
        committer.add(b"1")
        follow("first")
        with pytest.raises(JournalUnwritable):
            await committer.settled()
        follow("first, later")
        committer.add(b"2")
        follow("second")
        assert len(told) == 1
        written = asyncio.Event()
        committer.when_written(written.set)
        shelf.problem = ""
        await written.wait()
        assert told[1:] == [("first", 2), ("first, later", 2), ("second", 2)]
        assert (committer.added, committer.written) == (2, 2)

    run(scenario())


def test_nothing_follows_what_is_never_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        committer = Committer(shelf)
        told: list[str] = []
        committer.break_down(ValueError("a bug"))
        committer.when_written(lambda: told.append("follows"))
        await committer.close()
        assert not told

    run(scenario())


def test_nothing_to_wait_for() -> None:
    async def scenario() -> None:
        await Committer(Shelf()).settled()

    run(scenario())


def test_records_that_come_during_a_write_go_into_the_next_one() -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=True)
        committer = Committer(shelf)
        shelf.open.clear()
        committer.add(b"1")
        first = asyncio.create_task(committer.settled())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        committer.add(b"2")
        committer.add(b"3")
        second = asyncio.create_task(committer.settled())
        await asyncio.sleep(0)
        assert not first.done()
        shelf.open.set()
        await asyncio.gather(first, second)
        assert shelf.writes == [[b"1"], [b"2", b"3"]]

    run(scenario())


def test_caller_that_goes_away_does_not_end_the_round() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        committer = Committer(shelf)
        committer.add(b"1")
        leaving = asyncio.create_task(committer.settled())
        staying = asyncio.create_task(committer.settled())
        await asyncio.sleep(0)
        leaving.cancel()
        await staying
        assert shelf.records == [b"1"]

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_what_cannot_be_written_is_kept_and_written_later(waits: bool) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        host = hosted(shelf)
        shelf.problem = "No space left on device"
        assert host.apply(allocate("a", 1, 2)) == (Granted([0, 1], 2), False)
        with pytest.raises(JournalUnwritable, match="No space left"):
            await host.settled()
        assert not host.writable
        # Nothing new is carried out; what only looks or renews is.
        with pytest.raises(JournalUnwritable):
            host.apply(free("a", 1))
        assert host.table("a", 1) == [0, 1]
        assert host.available("a") == 2
        await host.settled_of("b")
        with pytest.raises(JournalUnwritable):
            await host.settled_of("a")
        shelf.problem = ""
        await written(host)
        await host.settled_of("a")
        assert shelf.records == [b"main Allocate 1"]
        assert host.apply(free("a", 1)) == (Freed(2), False)
        await host.settled()
        assert shelf.records == [b"main Allocate 1", b"main Free "]

    run(scenario())


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("waits", [False, True])
def test_a_write_whose_outcome_is_unknown_is_settled_by_writing_again(
    waits: bool, made: bool
) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        host = hosted(shelf)
        shelf.lose_answer = made
        assert host.apply(allocate("a", 1, 2)) == (Granted([0, 1], 2), False)
        with pytest.raises(JournalUnwritable, match="the answer was lost"):
            await host.settled()
        with pytest.raises(JournalUnwritable):
            host.apply(free("a", 1))
        # A write that fails meanwhile leaves the other one as unknown as it was.
        shelf.problem = "No space left on device"
        with pytest.raises(JournalUnwritable, match="No space left"):
            await until_told(host, "No space left")
        shelf.problem = ""
        await written(host)
        assert host.apply(free("a", 1)) == (Freed(2), False)
        await host.settled()
        everything = [entry.record for entry in shelf.read(0)]
        assert everything == [b"main Allocate 1", b"main Free "]

    run(scenario())


async def until_told(host: PoolHost, problem: str) -> None:
    """Wait until what is in the way is this problem; raises what is told then."""
    while True:
        try:
            return await host.settled()
        except JournalUnwritable as error:
            if problem in str(error):
                raise
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("found", [[], [b"1"], [b"1", b"2"]])
def test_what_is_found_of_an_unknown_write_is_not_written_again(found: list[bytes]) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=True)
        committer = Committer(shelf)
        shelf.lose_answer = False
        committer.add(b"1")
        committer.add(b"2")
        with pytest.raises(JournalUnwritable):
            await committer.settled()
        # It comes late.
        MemoryJournal.append(shelf, 0, found)
        committer.add(b"3")
        everything = asyncio.Event()
        committer.when_written(everything.set)
        await everything.wait()
        assert [entry.record for entry in shelf.read(0)] == [b"1", b"2", b"3"]
        await committer.settled()

    run(scenario())


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_another_writer_ends_the_writing(waits: bool, unknown: bool) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        committer = Committer(shelf)
        watching = asyncio.create_task(committer.watch())
        if unknown:
            shelf.lose_answer = False
            committer.add(b"1")
            with pytest.raises(JournalUnwritable):
                await committer.settled()
        MemoryJournal.append(shelf, 0, [b"of another writer"])
        committer.add(b"2")
        with pytest.raises(PositionTaken, match="to follow record 0, but the last one is 1"):
            await watching
        with pytest.raises(JournalBroken):
            await committer.settled()
        assert [entry.record for entry in shelf.read(0)] == [b"of another writer"]

    run(scenario())


def test_close_waits_for_a_write_under_way() -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=True)
        committer = Committer(shelf)
        shelf.open.clear()
        committer.add(b"1")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closing = asyncio.create_task(committer.close())
        await asyncio.sleep(0)
        assert not closing.done()
        shelf.open.set()
        await closing
        assert shelf.records == [b"1"]

    run(scenario())


def test_close_gives_up_what_cannot_be_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        committer = Committer(shelf)
        shelf.problem = "No space left on device"
        committer.add(b"1")
        await committer.close()
        assert shelf.records == []

    run(scenario())


def test_renewal_goes_on_while_nothing_can_be_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        host = hosted(shelf)
        attached, _ = host.apply(Attach("a", 0, "", False, 1000, 0))
        assert isinstance(attached, Attached)
        await host.settled()
        shelf.problem = "No space left on device"
        host.apply(allocate("b", 1, 1))
        with pytest.raises(JournalUnwritable):
            await host.settled()
        assert host.apply(Renew("a", attached.epoch)) == (Renewed(1000), False)
        with pytest.raises(JournalUnwritable):
            host.apply(allocate("b", 2, 1))

    run(scenario())


def test_nobody_is_told_of_an_end_that_is_not_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        host = hosted(shelf)
        attached, _ = host.apply(Attach("a", 0, "", False, 1000, 0))
        assert isinstance(attached, Attached)
        await host.settled()
        shelf.problem = "No space left on device"
        host.reclaim(Reclaim("a", 0, "", 0), force=True)
        with pytest.raises(JournalUnwritable):
            await host.settled()
        # A server that is killed now does not know of the reclaim when it is back.
        with pytest.raises(JournalUnwritable):
            host.apply(Renew("a", attached.epoch))
        shelf.problem = ""
        await written(host)
        with pytest.raises(StaleEpoch):
            host.apply(Renew("a", attached.epoch))

    run(scenario())


def test_repeated_requests_and_renewals_are_not_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        host = hosted(shelf)
        command = allocate("a", 1, 2)._replace(request_id="r")
        assert host.apply(command)[0] == host.apply(command)[0]
        await host.settled()
        assert len(shelf.records) == 1
        with pytest.raises(Exception, match="no lease"):
            host.apply(Renew("a", 7))
        await host.settled()
        assert len(shelf.records) == 1

    run(scenario())


def test_who_added_nothing_waits_for_the_write_under_way_only() -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=True)
        committer = Committer(shelf)
        shelf.open.clear()
        committer.add(b"first")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(committer.settled())
        await asyncio.sleep(0)
        shelf.open.set()
        await waiting
        committer.add(b"second")
        await committer.settled()
        assert shelf.records == [b"first", b"second"]

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_after_a_bug_in_a_write_nothing_is_acknowledged(waits: bool) -> None:
    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        committer = Committer(shelf)
        pool = Pool(Geometry("main", 4, 16, 0), Bounds(8, 8, 8))
        host = PoolHost(pool, 8, None, committer, encode=encode)
        watching = asyncio.create_task(committer.watch())
        host.apply(allocate("a", 1, 1))
        await host.settled()
        shelf.broken = ValueError("a bug")
        if waits:
            shelf.open.clear()
        host.apply(allocate("a", 2, 1))
        waiting = [asyncio.create_task(host.settled()) for _ in range(2)]
        if waits:
            await asyncio.sleep(0.01)
            # Of the next round: its record is not in the write that fails.
            host.apply(allocate("a", 3, 1))
            waiting.append(asyncio.create_task(host.settled()))
            await asyncio.sleep(0.01)
        assert not watching.done()
        shelf.open.set()
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, JournalBroken)
        with pytest.raises(ValueError, match="a bug"):
            await watching
        shelf.broken = None
        assert not host.writable
        for _ in range(2):
            with pytest.raises(JournalBroken) as caught:
                host.apply(free("a", 1))
            assert isinstance(caught.value.__cause__, ValueError)
            with pytest.raises(JournalBroken):
                await host.settled()
        assert host.table("a", 1) == [0]
        await committer.close()
        assert len(shelf.records) == 1

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
def test_after_a_command_without_a_record_nothing_is_acknowledged(waits: bool) -> None:
    """Whatever was carried out after it would not follow from what is kept."""

    def encode_some(pool: str, stamp: Stamp, command: Command) -> bytes:
        if command == free("a", 1):
            raise ValueError("a bug")
        return encode(pool, stamp, command)

    async def scenario() -> None:
        shelf = Shelf(synced=waits)
        # A clock that stands: the journal is never busy.
        committer = Committer(shelf, lambda: 0)
        pool = Pool(Geometry("main", 4, 16, 0), Bounds(8, 8, 8))
        host = PoolHost(pool, 8, None, committer, encode=encode_some)

        async def carry_out(command: Command) -> None:
            host.apply(command)
            await host.settled()

        watching = asyncio.create_task(committer.watch())
        await carry_out(allocate("a", 1, 1))
        if waits:
            shelf.open.clear()
        under_way = asyncio.create_task(carry_out(allocate("a", 2, 1)))
        await asyncio.sleep(0)
        if waits:
            await asyncio.sleep(0.01)
        following = asyncio.create_task(carry_out(allocate("a", 3, 1)))
        without_record = asyncio.create_task(carry_out(free("a", 1)))
        shelf.open.set()
        told = await asyncio.gather(
            under_way, following, without_record, watching, return_exceptions=True
        )
        # A write that is under way ends as it likes; what was to be written next is not.
        second = JournalBroken if waits else type(None)
        assert [type(one) for one in told] == [type(None), second, ValueError, ValueError]
        count = len(shelf.records)
        assert count == (2 if waits else 3)
        for _ in range(2):
            with pytest.raises(JournalBroken):
                await carry_out(allocate("a", 4, 1))
            with pytest.raises(JournalBroken):
                await host.settled()
        await committer.close()
        assert not host.writable
        assert len(shelf.records) == count

    run(scenario())
