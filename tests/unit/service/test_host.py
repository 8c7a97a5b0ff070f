"""What a server holds: pools by name, one live session for each engine, and the drain."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kvblock_service.core.commands import Allocate, Refused
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.errors import (
    Draining,
    EngineAttached,
    InvalidField,
    PoolNotFound,
    StateLimit,
)
from kvblock_service.host import Host, HostLimits, LiveSession
from kvblock_service.pool_host import PoolHost


def host_of(*names: str, default: str = "", sessions_max: int = 8) -> Host:
    pools = [PoolHost(Geometry(name, 2, 16, 0), Bounds(8, 8), 8) for name in names]
    return Host(pools, default, HostLimits(sessions_max, drain_retry_after=0.5), server_epoch=1)


def session(engine: str = "a", pool: str = "main") -> LiveSession:
    return LiveSession(pool, engine)


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
    with pytest.raises(PoolNotFound, match="this server hosts: main") as caught:
        host_of("main").pool("other")
    assert caught.value.metadata == {"pool": "other"}


def test_one_live_session_for_an_engine_of_a_pool() -> None:
    async def scenario() -> None:
        host = host_of("main", "other")
        host.handover_wait = 0.0
        first = session()
        await host.attach(first)
        with pytest.raises(EngineAttached) as caught:
            await host.attach(session())
        assert caught.value.metadata == {"pool": "main", "engine": "a"}
        await host.attach(session("b"))
        await host.attach(session("a", "other"))
        assert host.attached("main") == ["a", "b"]
        host.leave(first)
        assert host.attached("main") == ["b"]
        await host.attach(session())

    run(scenario())


def test_attach_waits_for_a_session_that_is_ending() -> None:
    async def scenario() -> None:
        host = host_of("main")
        host.handover_wait = 3600.0
        first, second, third = session(), session(), session()
        await host.attach(first)
        attaching = [asyncio.create_task(host.attach(one)) for one in (second, third)]
        await settle()
        assert not any(task.done() for task in attaching)
        host.leave(first)
        await settle()
        assert [task.done() for task in attaching] == [True, False]
        assert host.sessions["main", "a"] is second
        host.leave(second)
        await settle()
        assert host.sessions["main", "a"] is third

    run(scenario())


def test_leaving_twice_does_not_end_a_later_session() -> None:
    async def scenario() -> None:
        host = host_of("main")
        first, second = session(), session()
        await host.attach(first)
        host.leave(first)
        await host.attach(second)
        host.leave(first)
        assert host.attached("main") == ["a"]

    run(scenario())


def test_sessions_max_counts_all_pools() -> None:
    async def scenario() -> None:
        host = host_of("main", "other", sessions_max=2)
        first = session("a")
        await host.attach(first)
        await host.attach(session("a", "other"))
        with pytest.raises(StateLimit) as caught:
            await host.attach(session("b"))
        assert caught.value.metadata["limit"] == "sessions_max"
        host.leave(first)
        await host.attach(session("b"))

    run(scenario())


def test_drain_interrupts_streams_and_answers_those_who_wait() -> None:
    async def scenario() -> None:
        host = host_of("main")
        interrupted: list[str] = []
        host.streams["a"] = lambda: interrupted.append("a")
        host.streams["b"] = lambda: interrupted.append("b")
        pool = host.pool("")
        pool.apply(Allocate("a", 1, 2))
        waiting = asyncio.create_task(pool.allocate(Allocate("b", 1, 1), 3600.0))
        await settle()
        host.refuse_when_draining()
        host.begin_drain()
        assert interrupted == ["a", "b"]
        assert isinstance(await waiting, Refused)
        with pytest.raises(Draining) as caught:
            host.refuse_when_draining()
        assert caught.value.retry_after == 0.5
        with pytest.raises(Draining):
            await host.attach(session("c"))

    run(scenario())


def test_attach_that_waits_does_not_outlive_the_begin_of_a_drain() -> None:
    async def scenario() -> None:
        host = host_of("main")
        host.handover_wait = 3600.0
        first = session()
        await host.attach(first)
        attaching = asyncio.create_task(host.attach(session()))
        await settle()
        host.begin_drain()
        host.leave(first)
        await settle()
        assert isinstance(attaching.exception(), Draining)

    run(scenario())
