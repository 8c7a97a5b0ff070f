"""Pools that come and go while a server runs."""

import asyncio
import re

import pytest

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    CreatePool,
    Free,
    Granted,
    Reclaim,
)
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.core.registry import REQUEST_IDS_MAX, Registry
from kvblock_service.errors import (
    EngineAttached,
    EngineNotFound,
    IdentityReused,
    PoolExists,
    PoolHeld,
    PoolNotFound,
    StaleEpoch,
    StateLimit,
)
from kvblock_service.host import Host, HostLimits
from kvblock_service.pool_host import PoolHost
from tests.unit.service.test_host import hosted

SIDE = Geometry("side", 4, 32, 1)


def host_of(*names: str, pools_max: int = 4) -> Host:
    registry = Registry(Bounds(8, 8, 8), 100)
    for name in names:
        registry.apply(CreatePool(Geometry(name, 2, 16, 0), 100, True, quarantine_ms=0))
    return Host(registry, hosted, "", HostLimits(8, 0.5, pools_max), 100)


def attach(pool: PoolHost, engine: str = "a") -> int:
    attached, _ = pool.apply(Attach(engine, 0, "", False, 1000, 0))
    assert isinstance(attached, Attached)
    return attached.epoch


def test_a_lease_tells_what_is_left_of_it() -> None:
    pool = host_of("main").pools["main"]
    now_ms = 5_000
    pool.now_ms = lambda: now_ms
    epoch = attach(pool)
    assert pool.expires_in_ms("a", epoch) == 1000
    now_ms = 5_700
    assert pool.expires_in_ms("a", epoch) == 300
    # Nothing has ended it yet, but it may end at any moment.
    now_ms = 6_100
    assert pool.expires_in_ms("a", epoch) == 0
    assert pool.expires_in_ms("a", epoch + 1) == 0
    assert pool.expires_in_ms("b", epoch) == 0


def test_a_created_pool_is_there_in_order_and_is_not_the_default() -> None:
    host = host_of("main")
    before = host.pools
    assert host.create_pool(Geometry("a", 4, 32, 1), 5, "")
    assert list(host.pools) == ["a", "main"]
    assert list(before) == ["main"]
    assert host.pools["a"].quarantine_ms == 5
    assert host.pool("") is host.pools["main"]


def test_a_name_that_is_taken() -> None:
    host = host_of("side")
    with pytest.raises(PoolExists) as caught:
        host.create_pool(Geometry("side", 2, 16, 0), 0, "")
    assert caught.value.metadata == {"pool": "side"}


def test_pools_max_counts_those_of_the_start() -> None:
    host = host_of("a", "b", pools_max=3)
    host.create_pool(SIDE, None, "")
    with pytest.raises(StateLimit) as caught:
        host.create_pool(SIDE._replace(name="more"), None, "")
    assert caught.value.metadata == {"limit": "pools_max", "max": "3", "pool": "more"}
    host.delete_pool("a", "")
    host.create_pool(SIDE._replace(name="more"), None, "")


def test_commands_that_are_sent_again_change_nothing() -> None:
    host = host_of("main")
    assert host.create_pool(SIDE, None, "c")
    assert not host.create_pool(SIDE, None, "c")
    assert host.delete_pool("side", "d")
    assert not host.delete_pool("side", "d")
    assert not host.create_pool(SIDE, None, "c")
    assert list(host.pools) == ["main"]
    with pytest.raises(IdentityReused):
        host.create_pool(SIDE, 1, "c")
    with pytest.raises(IdentityReused):
        host.delete_pool("main", "c")


def test_what_failed_is_not_remembered_and_the_oldest_ids_are_forgotten() -> None:
    host = host_of("main")
    with pytest.raises(PoolNotFound):
        host.delete_pool("side", "x")
    assert host.create_pool(SIDE, None, "x")
    for number in range(REQUEST_IDS_MAX // 2):
        host.delete_pool("side", f"d{number}")
        host.create_pool(SIDE, None, f"c{number}")
    with pytest.raises(PoolExists):
        host.create_pool(SIDE, None, "x")


def test_a_pool_in_use_is_not_deleted() -> None:
    host = host_of("main")
    pool = host.pool("main")
    epoch = attach(pool)
    with pytest.raises(PoolHeld) as caught:
        host.delete_pool("main", "")
    held = {"held_blocks": "0", "quarantined_blocks": "0", "leases": "1", "waiting": "0"}
    assert caught.value.metadata == {"pool": "main"} | held
    pool.apply(Allocate("a", epoch, "", 1, 2))
    pool.reclaim(Reclaim("a", epoch, "", 60_000), force=True)
    with pytest.raises(PoolHeld) as caught:
        host.delete_pool("main", "")
    assert caught.value.metadata["quarantined_blocks"] == "2"
    assert host.pool("main") is pool


def test_a_pool_is_not_deleted_between_a_free_and_the_grant_to_who_waited_for_it() -> None:
    async def scenario() -> None:
        host = host_of("main")
        pool = host.pool("main")
        pool.apply(Allocate("a", 0, "", 1, 2))
        waiting = asyncio.create_task(pool.allocate(Allocate("b", 0, "", 1, 1), 3600.0))
        await asyncio.sleep(0)
        pool.apply(Free("a", 0, "", 1))
        with pytest.raises(PoolHeld) as caught:
            host.delete_pool("main", "")
        assert caught.value.metadata["held_blocks"] == "0"
        assert caught.value.metadata["waiting"] == "1"
        assert isinstance(await waiting, Granted)

    asyncio.run(scenario())


def test_the_default_pool_keeps_its_name_when_it_is_deleted_and_made_anew() -> None:
    host = host_of("main")
    host.delete_pool("main", "")
    with pytest.raises(PoolNotFound, match="there is no pool 'main'; this server's pools: none"):
        host.pool("")
    host.create_pool(SIDE, None, "")
    with pytest.raises(PoolNotFound, match="this server's pools: side"):
        host.pool("")
    host.create_pool(Geometry("main", 9, 16, 0), None, "")
    assert host.pool("").geometry.total_blocks == 9


def test_a_later_pool_of_the_same_name_does_not_know_earlier_epochs() -> None:
    host = host_of("main")
    late = attach(host.pool("main"), "b")
    host.pool("main").reclaim(Reclaim("b", late, "", 0), force=True)
    host.delete_pool("main", "")
    host.create_pool(Geometry("main", 2, 16, 0), 0, "")
    pool = host.pool("main")
    assert attach(pool, "b") > late
    with pytest.raises(StaleEpoch):
        pool.apply(Allocate("b", late, "", 1, 1))


def test_reclaim_takes_an_engine_that_is_there() -> None:
    pool = host_of("main").pool("main")
    with pytest.raises(EngineNotFound):
        pool.reclaim(Reclaim("a", 0, "", 0))
    granted, _ = pool.apply(Allocate("a", 0, "", 1, 2))
    assert isinstance(granted, Granted)
    assert pool.reclaim(Reclaim("a", 0, "once", 0)).num_blocks == 2
    assert pool.reclaim(Reclaim("a", 0, "once", 7)).num_blocks == 2
    with pytest.raises(EngineNotFound):
        pool.reclaim(Reclaim("a", 0, "twice", 0))
    pool.apply(Free("a", 0, "", 1))
    assert pool.available("a") == 2


def test_a_lease_that_has_not_run_out_is_reclaimed_by_force_only() -> None:
    pool = host_of("main").pool("main")
    epoch = attach(pool)
    pool.apply(Allocate("a", epoch, "", 1, 2))
    for named in (0, epoch):
        with pytest.raises(EngineAttached) as caught:
            pool.reclaim(Reclaim("a", named, "", 0))
        assert re.search(r"its last heartbeat was \d+\.\d s ago", str(caught.value))
        assert caught.value.metadata == {"pool": "main", "engine": "a"}
        assert caught.value.retry_after is not None
    assert (pool.epoch("a"), pool.state().held_blocks) == (epoch, 2)
    assert pool.reclaim(Reclaim("a", 0, "once", 0), force=True).num_blocks == 2
    # A repeat is answered, also when it is not forced and there is a new lease.
    attach(pool)
    assert pool.reclaim(Reclaim("a", 0, "once", 0)).num_blocks == 2


def test_reclaim_with_another_epoch_changes_nothing() -> None:
    pool = host_of("main").pool("main")
    epoch = attach(pool)
    with pytest.raises(StaleEpoch):
        pool.reclaim(Reclaim("a", epoch + 1, "", 0))
    assert pool.epoch("a") == epoch
