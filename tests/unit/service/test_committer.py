"""Group commit: what is written when."""

import asyncio

import pytest

from kvblock_service.committer import Committer
from kvblock_service.core.commands import (
    Renew,
)
from kvblock_service.errors import JournalUnwritable
from tests.commands import allocate
from tests.unit.service.committing import Shelf, add, hosted, run


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
        clock = iter([100, 110, 139, 200, 210, 240, 250])
        committer = Committer(shelf, clock.__next__)
        committer.add(b"alone")
        assert shelf.writes == [[b"alone"]]
        await asyncio.gather(*(add(committer, shelf, b"%d" % n) for n in range(3)))
        assert shelf.writes[1:] == [[b"0", b"1", b"2"]]
        committer.add(b"late enough")
        assert shelf.writes[2:] == [[b"late enough"]]
        assert next(clock, None) is None

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
