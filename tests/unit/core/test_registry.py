"""Pools that come and go by commands, live and at a restart."""

import pytest

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    CreatePool,
    DeletePool,
    Geometry,
    Granted,
    IdReused,
    LimitReached,
    PoolAbsent,
    PoolChange,
    PoolChanged,
    PoolPresent,
)
from kvblock_service.core.pool import Bounds
from kvblock_service.core.registry import REQUEST_IDS_MAX, Registry
from tests.commands import STAMP

MAIN = CreatePool(Geometry("main", 4, 16, 0), 100, configured=False, quarantine_ms=5)
BOUNDS = Bounds(8, 8, 8)


@pytest.fixture
def registry() -> Registry:
    made = Registry(BOUNDS, epoch_floor=100)
    assert made.apply(MAIN) == (PoolChanged(), False)
    return made


def attach(registry: Registry, name: str) -> int:
    outcome, _ = registry.replay(name, STAMP, Attach("a", 0, "", False, 1000, 0))
    assert isinstance(outcome, Attached)
    return outcome.epoch


def test_a_pool_is_what_its_command_says(registry: Registry) -> None:
    ((name, entry),) = registry.pools.items()
    assert (name, entry.configured, entry.quarantine_ms) == ("main", False, 5)
    assert (entry.pool.geometry, entry.pool.bounds) == (MAIN.geometry, BOUNDS)
    assert attach(registry, "main") == 101


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (MAIN, PoolPresent("main")),
        (MAIN._replace(geometry=Geometry("more", 1, 1, 0)), LimitReached("pools_max", 1)),
        (DeletePool("other"), PoolAbsent("other")),
    ],
)
def test_what_is_rejected_changes_nothing_and_is_not_known(
    registry: Registry, change: PoolChange, outcome: object
) -> None:
    registry.pools_max = 1
    change = change._replace(request_id="r")
    assert registry.apply(change) == (outcome, False)
    assert list(registry.pools) == ["main"]
    assert not registry.knows(change)


def test_a_command_with_a_request_id_takes_effect_once(registry: Registry) -> None:
    delete = DeletePool("main", "d")
    assert registry.apply(delete) == (PoolChanged(), False)
    again = MAIN._replace(request_id="c")
    assert registry.apply(again) == (PoolChanged(), False)
    assert registry.apply(delete) == (PoolChanged(), True)
    # The floor is the server's to say, and is another one by now.
    assert registry.apply(again._replace(epoch_floor=101)) == (PoolChanged(), True)
    assert registry.apply(again._replace(quarantine_ms=6)) == (IdReused("request_id"), True)
    assert registry.apply(DeletePool("main", "c")) == (IdReused("request_id"), True)
    assert list(registry.pools) == ["main"]
    assert registry.changes == (delete, again)


def test_the_oldest_request_ids_are_forgotten(registry: Registry) -> None:
    for number in range(REQUEST_IDS_MAX // 2 + 1):
        registry.apply(DeletePool("main", f"d{number}"))
        registry.apply(MAIN._replace(request_id=f"c{number}"))
    assert len(registry.changes) == REQUEST_IDS_MAX
    assert not registry.knows(DeletePool("main", "d0"))
    assert registry.knows(DeletePool("main", "d1"))


def test_a_command_on_record_was_a_new_one_whatever_is_known(registry: Registry) -> None:
    delete = DeletePool("main", "d")
    registry.apply(delete)
    registry.apply(MAIN)
    assert registry.replay_change(delete) == (PoolChanged(), False)
    registry.apply(MAIN)
    allocate = Allocate("a", 0, "r", 1, 1)
    assert registry.replay("main", STAMP, allocate) == (Granted([0], 1), False)
    assert registry.replay("main", STAMP, allocate) == (Granted([1], 2), False)
    assert registry.replay("other", STAMP, allocate) == (PoolAbsent("other"), False)


def test_epochs_of_a_deleted_pool_never_come_back(registry: Registry) -> None:
    late = attach(registry, "main")
    assert registry.last_epoch == late
    registry.apply(DeletePool("main"))
    assert registry.last_epoch == late
    registry.apply(MAIN._replace(epoch_floor=registry.last_epoch))
    assert attach(registry, "main") > late
