"""Leases, epochs and quarantine, to the block and the millisecond."""

import copy
from typing import Any

import pytest

from kvblock_service.core import leases
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    EngineHeld,
    Expire,
    Fenced,
    Free,
    Freed,
    LimitReached,
    Reclaim,
    Renew,
    Renewed,
    Stamp,
    Step,
)
from tests.commands import STAMP
from tests.unit.core.pools import ALL, Desk


def due(desk: Desk, quarantine_ms: int | None = None) -> list[Command]:
    return leases.due(desk.pool, desk.now_ms, quarantine_ms)


def end_what_is_due(desk: Desk, quarantine_ms: int | None = None) -> None:
    for command in due(desk, quarantine_ms):
        desk.apply(command)


def state(desk: Desk) -> Any:
    """Everything that a command may change, apart from what it only counts."""
    pool = desk.pool
    return copy.deepcopy(
        (
            {
                name: (engine.tables, engine.epoch, engine.deadline_ms, engine.last_step)
                for name, engine in pool.engines.items()
            },
            pool.blocks.free_list.freed,
            pool.blocks.free_list.fresh,
            pool.blocks.quarantine,
            pool.revision,
            pool.cache.results,
        )
    )


def test_attach_gives_epochs_that_grow_and_are_never_given_again() -> None:
    desk = Desk(4)
    first = desk.attach("a")
    second = desk.attach("b")
    desk.detach("a")
    third = desk.attach("a")
    assert first.epoch < second.epoch < third.epoch
    assert first[1:] == (1000, 0, 0, 0, False, 0)


def test_attach_finds_what_the_engine_held_without_a_lease() -> None:
    desk = Desk(4)
    desk.allocate(1, 3)
    assert desk.attach("a")[2:4] == (3, 1)
    assert desk.table(1) == [0, 1, 2]


def test_attach_with_the_epoch_resumes() -> None:
    desk = Desk(4)
    lease = desk.attach("a")
    desk.allocate(1, 2)
    desk.now_ms = 700
    resumed = desk.attach("a", epoch=lease.epoch, ttl_ms=2000)
    assert resumed == (lease.epoch, 2000, 2, 1, 0, True, 0)
    desk.now_ms = 2699
    assert due(desk) == []
    desk.now_ms = 2700
    assert due(desk) == [Expire("a", lease.epoch, 2000)]


@pytest.mark.parametrize("epoch_off", [None, 1, 2])
def test_attach_is_refused_while_the_lease_lives(epoch_off: int | None) -> None:
    desk = Desk(4)
    lease = desk.attach("a")
    desk.allocate(1)
    desk.now_ms = 300
    before = state(desk)
    # An epoch is that of a lease which has ended: the lease of this name is another client's.
    epoch = 0 if epoch_off is None else lease.epoch + epoch_off
    refused = EngineHeld(700) if epoch_off is None else Fenced(lease.epoch)
    assert desk.apply(Attach("a", epoch, "", False, 1000, 0)) == refused
    assert state(desk) == before


def test_attach_with_a_past_epoch_is_fenced() -> None:
    desk = Desk(4)
    lease = desk.attach("a")
    desk.detach("a")
    assert desk.apply(Attach("a", lease.epoch, "", False, 1000, 0)) == Fenced(0)


def test_attach_without_a_ttl_resumes_with_that_of_the_lease() -> None:
    desk = Desk(4)
    lease = desk.attach("a", ttl_ms=1500)
    desk.now_ms = 700
    assert desk.attach("a", epoch=lease.epoch, ttl_ms=0) == Attached(
        lease.epoch, 1500, 0, 0, 0, True
    )
    assert desk.pool.engines["a"].deadline_ms == 2200


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("epoch_off", [None, 1])
def test_attach_without_a_ttl_begins_no_lease(takeover: bool, epoch_off: int | None) -> None:
    desk = Desk(4)
    lease = desk.attach("a")
    epoch = 0 if epoch_off is None else lease.epoch + epoch_off
    before = state(desk)
    assert desk.apply(Attach("a", epoch, "", takeover, 0, 0)) == Fenced(lease.epoch)
    assert desk.apply(Attach("b", epoch, "", takeover, 0, 0)) == Fenced(0)
    assert state(desk) == before


def test_takeover_with_a_past_epoch_begins_a_lease() -> None:
    desk = Desk(4)
    first = desk.attach("a")
    desk.detach("a")
    second = desk.attach("a", epoch=first.epoch, takeover=True)
    third = desk.attach("a", epoch=first.epoch, takeover=True)
    assert first.epoch < second.epoch < third.epoch
    assert not third.resumed


def test_takeover_puts_the_old_blocks_into_quarantine_in_table_order() -> None:
    desk = Desk(6)
    old = desk.attach("a")
    desk.allocate(1, 2)
    desk.allocate(2)
    desk.allocate(1)
    revision = desk.pool.revision
    new = desk.attach("a", takeover=True, quarantine_ms=500)
    assert desk.pool.revision == revision + 1
    assert new.epoch > old.epoch
    assert new[2:4] == (0, 0)
    (batch,) = desk.pool.blocks.quarantine.values()
    assert batch.blocks.tolist() == [0, 1, 3, 2]
    assert (batch.due_ms, batch.engine, batch.epoch) == (500, "a", old.epoch)
    assert desk.allocate(9, 2) == [4, 5]
    desk.refused(9)
    desk.now_ms = 499
    assert due(desk) == []
    desk.now_ms = 500
    assert due(desk) == [EndQuarantine(1)]
    end_what_is_due(desk)
    assert desk.allocate(9, 4) == [2, 3, 1, 0]


def test_expiry_quarantines_for_a_ttl_unless_the_pool_says_otherwise() -> None:
    desk = Desk(4)
    lease = desk.attach("a", ttl_ms=1000)
    desk.allocate(1, 2)
    desk.now_ms = 1000
    assert due(desk) == [Expire("a", lease.epoch, 1000)]
    assert due(desk, 250) == [Expire("a", lease.epoch, 250)]
    assert desk.apply(due(desk, 250)[0]) == Freed(2)
    assert (desk.pool.blocks.held, desk.pool.blocks.quarantined, desk.free_blocks) == (0, 2, 2)
    assert (desk.pool.blocks.reclaimed_total, desk.pool.expired_total) == (2, 1)
    assert desk.table(1) is None
    desk.now_ms = 1250
    end_what_is_due(desk, 250)
    assert (desk.pool.blocks.quarantined, desk.free_blocks) == (0, 4)


def test_quarantine_of_zero_frees_at_once() -> None:
    desk = Desk(4)
    desk.attach("a")
    desk.allocate(1, 2)
    desk.now_ms = 1000
    end_what_is_due(desk, 0)
    assert desk.pool.blocks.quarantine == {}
    assert desk.allocate(1, 2, engine="b") == [1, 0]


def test_every_command_of_the_epoch_renews() -> None:
    desk = Desk(4)
    lease = desk.attach("a", ttl_ms=1000)
    commands: list[Command] = [
        Allocate("a", lease.epoch, "", 1, 1),
        Free("a", lease.epoch, "", 1),
        Step("a", lease.epoch, "", 1, [], [2], [], ALL),
        # The last step again.
        Step("a", lease.epoch, "", 1, [], [2], [], ALL),
        Renew("a", lease.epoch),
    ]
    for row, command in enumerate(commands, start=1):
        desk.now_ms = 900 * row
        desk.apply(command)
        assert due(desk) == []
        assert desk.pool.engines["a"].deadline_ms == 900 * row + 1000
    assert desk.apply(commands[-1]) == Renewed(1000)


def test_detach_frees_at_once_and_in_table_order() -> None:
    desk = Desk(4)
    desk.attach("a")
    desk.allocate(1, 2)
    desk.allocate(2)
    assert desk.detach("a") == 3
    assert desk.pool.engines == {}
    assert desk.allocate(1, 4, engine="b") == [2, 1, 0, 3]


def test_reclaim_takes_from_engines_with_and_without_a_lease() -> None:
    desk = Desk(4)
    lease = desk.attach("a")
    desk.allocate(1)
    desk.allocate(1, engine="b")
    assert desk.apply(Reclaim("a", lease.epoch + 1, "", 100)) == Fenced(lease.epoch)
    assert desk.apply(Reclaim("a", lease.epoch, "", 100)) == Freed(1)
    assert desk.apply(Reclaim("b", 0, "", 100)) == Freed(1)
    assert desk.apply(Reclaim("c", 0, "", 100)) == Freed(0)
    assert desk.pool.blocks.quarantined == 2


def stale_commands(epoch: int) -> list[Command]:
    return [
        Allocate("a", epoch, "", 1, 1),
        Allocate("a", epoch, "r", 1, 1),
        Free("a", epoch, "", 1),
        Step("a", epoch, "", 0, [1], [2], [], ALL),
        Step("a", epoch, "", 1, [1], [2], [], ALL),
        Detach("a", epoch, ""),
        Expire("a", epoch, 0),
        Renew("a", epoch),
    ]


@pytest.mark.parametrize("which", range(8))
@pytest.mark.parametrize("end", ["takeover", "expiry", "none"])
def test_stale_or_missing_epoch_changes_nothing(which: int, end: str) -> None:
    desk = Desk(8)
    old = desk.attach("a")
    desk.allocate(1, 2)
    stale = old.epoch
    if end == "takeover":
        desk.attach("a", takeover=True)
        desk.allocate(1, 2)
    elif end == "expiry":
        desk.now_ms = 1000
        end_what_is_due(desk)
    else:
        stale = 0
    before = state(desk)
    current = desk.pool.engines["a"].epoch if "a" in desk.pool.engines else 0
    assert desk.apply(stale_commands(stale)[which]) == Fenced(current)
    assert state(desk) == before


def test_late_free_cannot_hit_the_new_owner() -> None:
    desk = Desk(2)
    old = desk.attach("a")
    assert desk.allocate(1, 2) == [0, 1]
    desk.now_ms = 1000
    end_what_is_due(desk, 0)
    assert desk.allocate(1, 2, engine="b") == [1, 0]
    assert desk.apply(Free("a", old.epoch, "", 1)) == Fenced(0)
    assert desk.table(1, engine="b") == [1, 0]


def test_attached_engine_is_kept_without_a_table() -> None:
    desk = Desk(2, engines_max=1)
    desk.attach("a")
    desk.allocate(1)
    desk.free(1)
    assert list(desk.pool.engines) == ["a"]
    assert desk.apply(Attach("b", 0, "", False, 1, 0)) == LimitReached("engines_max", 1)
    # A takeover takes the place of the engine that it ends.
    desk.attach("a", takeover=True)


def test_begin_anew_gives_everything_its_full_time() -> None:
    desk = Desk(4)
    desk.attach("a", ttl_ms=1000)
    desk.attach("b", ttl_ms=2000)
    desk.allocate(1, engine="b")
    desk.attach("b", takeover=True, ttl_ms=2000, quarantine_ms=300)
    leases.begin_anew(desk.pool, 50_000)
    assert [engine.deadline_ms for engine in desk.pool.engines.values()] == [51_000, 52_000]
    assert [batch.due_ms for batch in desk.pool.blocks.quarantine.values()] == [50_300]


def test_full_ttl_leaves_the_quarantine_alone() -> None:
    desk = Desk(4)
    desk.attach("a", ttl_ms=1000)
    desk.allocate(1)
    desk.attach("a", takeover=True, ttl_ms=1000, quarantine_ms=300)
    leases.full_ttl(desk.pool, 5000)
    assert desk.pool.engines["a"].deadline_ms == 6000
    assert [batch.due_ms for batch in desk.pool.blocks.quarantine.values()] == [300]


@pytest.mark.parametrize("jump_ms", [-86_400_000, 86_400_000])
def test_wall_clock_decides_nothing(jump_ms: int) -> None:
    desk = Desk(4)
    lease = desk.attach("a", ttl_ms=1000)
    desk.pool.apply(Renew("a", lease.epoch), Stamp(100, STAMP.wall_ms + jump_ms, ""))
    desk.now_ms = 1099
    assert due(desk) == []
    desk.now_ms = 1100
    assert due(desk) == [Expire("a", lease.epoch, 1000)]


def test_epochs_begin_above_the_floor() -> None:
    desk = Desk(2)
    desk.pool.last_epoch = 1_700_000_000_000
    assert desk.attach("a").epoch == 1_700_000_000_001
