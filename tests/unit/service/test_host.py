"""What a server holds: pools by name, one stream for each lease, and the drain."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kvblock_service.call_error import CallError
from kvblock_service.committer import Committer
from kvblock_service.core.commands import CreatePool, Refused
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.core.registry import PoolEntry, Registry
from kvblock_service.errors import (
    Draining,
    InvalidField,
    PoolNotFound,
    SessionReplaced,
    StaleEpoch,
    StateLimit,
)
from kvblock_service.host import Host, HostLimits
from kvblock_service.pool_host import PoolHost
from tests.commands import allocate
from tests.unit.service.committing import Shelf


def hosted(entry: PoolEntry) -> PoolHost:
    return PoolHost(entry.pool, 8, entry.quarantine_ms)


def host_of(
    *names: str, default: str = "", sessions_max: int = 8, committer: Committer | None = None
) -> Host:
    registry = Registry(Bounds(8, 8, 8))
    for name in names:
        registry.apply(CreatePool(Geometry(name, 2, 16, 0), 0, configured=True))
    return Host(registry, hosted, default, HostLimits(sessions_max, 0.5, 64), 1, committer)


class Stream:
    """A stream that only notes how it was ended."""

    def __init__(self, engine: str = "a", pool: str = "main", epoch: int = 1) -> None:
        self.key = (pool, engine)
        self.epoch = epoch
        self.ended: CallError | None = None

    def end_with(self, error: CallError) -> None:
        self.ended = error


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_only_pool_is_the_default() -> None:
    host = host_of("main")
    assert host.pool("").geometry.name == "main"
    assert host.pool("main") is host.pool("")


def test_configured_default() -> None:
    host = host_of("b", "a", default="b")
    assert host.pool("").geometry.name == "b"
    assert list(host.pools) == ["a", "b"]


def test_no_default_among_several() -> None:
    with pytest.raises(InvalidField, match="name one of: a, b") as caught:
        host_of("b", "a").pool("")
    assert caught.value.metadata == {"field": "pool", "value": "''"}


def test_unknown_pool() -> None:
    with pytest.raises(PoolNotFound, match="this server's pools: main") as caught:
        host_of("main").pool("other")
    assert caught.value.metadata == {"pool": "other"}


def test_resumed_lease_ends_the_stream_that_it_had_before() -> None:
    host = host_of("main")
    first, second = Stream(), Stream()
    host.enter(first)
    host.enter(second)
    assert isinstance(first.ended, SessionReplaced)
    assert second.ended is None
    assert host.sessions == {("main", "a"): second}


def test_taken_over_lease_ends_the_stream_of_the_old_epoch() -> None:
    host = host_of("main")
    first, second = Stream(epoch=1), Stream(epoch=2)
    host.enter(first)
    host.enter(second)
    assert isinstance(first.ended, StaleEpoch)
    assert first.ended.metadata["epoch"] == "1"
    assert first.ended.metadata["current"] == "2"


def test_streams_of_other_engines_and_pools_do_not_meet() -> None:
    host = host_of("main", "other")
    streams = [Stream("a"), Stream("b"), Stream("a", "other")]
    for stream in streams:
        host.enter(stream)
    assert [stream.ended for stream in streams] == [None, None, None]
    assert len(host.sessions) == 3


def test_leaving_twice_does_not_end_a_later_stream() -> None:
    host = host_of("main")
    first, second = Stream(), Stream()
    host.enter(first)
    host.leave(first)
    host.enter(second)
    host.leave(first)
    assert host.sessions == {("main", "a"): second}


def test_lease_that_has_ended_ends_its_stream_only() -> None:
    host = host_of("main")
    stream = Stream(epoch=2)
    host.enter(stream)
    host.end_session("main", "a", 1)
    host.end_session("main", "b", 2)
    assert stream.ended is None
    host.end_session("main", "a", 2)
    assert isinstance(stream.ended, StaleEpoch)
    assert stream.ended.metadata["current"] == "0"


def test_a_stream_of_a_later_lease_is_left_alone() -> None:
    host = host_of("main")
    stream = Stream(epoch=3)
    host.enter(stream)
    host.end_sessions_before("main", "a", 2)
    host.end_sessions_before("main", "a", 3)
    host.end_session("main", "a", 2)
    assert stream.ended is None
    host.end_sessions_before("main", "a", 4)
    assert isinstance(stream.ended, StaleEpoch)
    assert stream.ended.metadata["current"] == "4"


def test_streams_end_when_what_ended_their_lease_is_written() -> None:
    async def scenario() -> None:
        shelf = Shelf()
        committer = Committer(shelf)
        host = host_of("main", sessions_max=1, committer=committer)
        displaced, live, newer = Stream(epoch=1), Stream(epoch=1), Stream(epoch=2)
        host.enter(displaced)
        shelf.problem = "No space left on device"
        committer.add(b"resumed")
        host.enter(live)
        assert host.sessions == {("main", "a"): live}
        host.refuse_more_sessions(live.key)
        committer.add(b"ran out")
        host.end_session("main", "a", 1)
        assert (displaced.ended, live.ended) == (None, None)
        committer.add(b"began anew")
        host.enter(newer)
        written = asyncio.Event()
        committer.when_written(written.set)
        shelf.problem = ""
        await written.wait()
        assert isinstance(displaced.ended, SessionReplaced)
        assert isinstance(live.ended, StaleEpoch)
        assert live.ended.metadata["current"] == "2"
        assert newer.ended is None
        assert not displaced.ended.of_state

    run(scenario())


def test_sessions_max_counts_all_pools_and_lets_a_stream_be_replaced() -> None:
    host = host_of("main", "other", sessions_max=2)
    first = Stream("a")
    for stream in (first, Stream("a", "other")):
        host.refuse_more_sessions(stream.key)
        host.enter(stream)
    host.refuse_more_sessions(first.key)
    with pytest.raises(StateLimit) as caught:
        host.refuse_more_sessions(("main", "b"))
    assert caught.value.metadata["limit"] == "sessions_max"
    host.leave(first)
    host.refuse_more_sessions(("main", "b"))


def test_drain_interrupts_streams_and_answers_those_who_wait() -> None:
    async def scenario() -> None:
        host = host_of("main")
        interrupted: list[str] = []
        host.streams["a"] = lambda: interrupted.append("a")
        host.streams["b"] = lambda: interrupted.append("b")
        pool = host.pool("")
        pool.apply(allocate("a", 1, 2))
        waiting = asyncio.create_task(pool.allocate(allocate("b", 1, 1), 3600.0))
        await settle()
        host.refuse_when_draining()
        host.begin_drain()
        assert interrupted == ["a", "b"]
        assert isinstance(await waiting, Refused)
        with pytest.raises(Draining) as caught:
            host.refuse_when_draining()
        assert caught.value.retry_after == 0.5

    run(scenario())
