"""Group commit while nothing can be written, and after a bug."""

import asyncio

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
from kvblock_service.journal.interface import PositionTaken
from kvblock_service.pool_host import PoolHost
from tests.commands import allocate, free
from tests.memory_journal import MemoryJournal
from tests.unit.service.committing import Shelf, encode, hosted, run, written


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
