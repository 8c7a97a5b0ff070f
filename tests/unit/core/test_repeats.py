"""A request that is sent again: the same answer, nothing changed, and how long that holds."""

from typing import TypeAlias

import pytest

from kvblock_service.core import leases
from kvblock_service.core.commands import (
    Allocate,
    Answer,
    Attach,
    Command,
    Detach,
    Fenced,
    Free,
    Freed,
    Granted,
    IdReused,
    Reclaim,
    Refused,
    Step,
    StepOutOfOrder,
)
from kvblock_service.core.idempotency import NUMBERS_PER_RESULT, IdempotencyCache, key_of
from tests.commands import STAMP
from tests.unit.core.pools import ALL, Desk

Cache: TypeAlias = IdempotencyCache[Command, Answer]


def twice(desk: Desk, command: Command) -> object:
    """Send a command twice; answers what came of it."""
    first = desk.apply(command)
    assert not desk.replayed
    revision = desk.pool.revision
    assert desk.apply(command) == first
    assert desk.replayed
    assert desk.pool.revision == revision
    return first


@pytest.mark.parametrize("attached", [False, True])
def test_same_id_same_answer(attached: bool) -> None:
    desk = Desk(8)
    epoch = desk.attach("a").epoch if attached else 0
    assert twice(desk, Allocate("a", epoch, "r1", 1, 2)) == Granted([0, 1], 2)
    assert twice(desk, Free("a", epoch, "r2", 1)) == Freed(2)
    assert desk.table(1) is None
    step = Step("a", epoch, "r3", 0, [], [5, 6], [], ALL)
    twice(desk, step)
    assert desk.table(5) == [1]
    refused = twice(desk, Allocate("a", epoch, "r4", 7, 7))
    assert isinstance(refused, Refused)
    twice(desk, Reclaim("a", 0, "r5", 0))


def test_attach_and_detach_that_are_sent_again() -> None:
    desk = Desk(8)
    command = Attach("a", 0, "r1", False, 1000, 0)
    lease = twice(desk, command)
    epoch = desk.pool.engines["a"].epoch
    assert lease == (epoch, 1000, 0, 0, 0, False, 0)
    desk.epochs["a"] = epoch
    desk.allocate(1, 3)
    assert twice(desk, Detach("a", epoch, "r2")) == Freed(3)


def test_an_attach_that_is_sent_again_renews_the_lease() -> None:
    desk = Desk(8)
    first = Attach("a", 0, "r1", False, 1000, 0)
    lease = desk.apply(first)
    desk.now_ms = 700
    assert desk.apply(first) == lease
    assert desk.pool.engines["a"].deadline_ms == 1700
    resume = Attach("a", desk.pool.engines["a"].epoch, "r2", False, 0, 0)
    desk.apply(resume)
    desk.now_ms = 900
    desk.apply(resume)
    assert (desk.replayed, desk.pool.engines["a"].deadline_ms) == (True, 1900)


def test_commands_of_two_kinds_under_one_id_are_two_commands() -> None:
    """Also where their fields are equal one by one."""
    desk = Desk(8)
    desk.allocate(5)
    desk.apply(Free("a", 0, "r1", 5))
    assert desk.apply(Reclaim("a", 0, "r1", 5)) == IdReused("request_id")


def test_attach_of_a_lease_that_has_ended_counts_as_new() -> None:
    desk = Desk(8)
    command = Attach("a", 0, "r1", False, 1000, 0)
    desk.apply(command)
    first = desk.pool.engines["a"].epoch
    desk.apply(Detach("a", first, ""))
    desk.apply(command)
    assert desk.pool.engines["a"].epoch > first


def test_other_content_under_the_same_id() -> None:
    desk = Desk(8)
    desk.apply(Allocate("a", 0, "r1", 1, 2))
    assert desk.apply(Allocate("a", 0, "r1", 1, 3)) == IdReused("request_id")
    assert desk.apply(Free("a", 0, "r1", 1)) == IdReused("request_id")
    assert desk.table(1) == [0, 1]


def test_ids_of_other_engines_and_epochs_do_not_meet() -> None:
    desk = Desk(8)
    desk.apply(Allocate("a", 0, "r1", 1, 1))
    assert desk.apply(Allocate("b", 0, "r1", 1, 1)) == Granted([1], 1)
    epoch = desk.attach("a").epoch
    assert desk.apply(Allocate("a", epoch, "r1", 1, 1)) == Granted([2], 2)


def test_stale_engine_is_never_told_of_its_old_blocks() -> None:
    desk = Desk(8)
    epoch = desk.attach("a").epoch
    command = Allocate("a", epoch, "r1", 1, 2)
    assert desk.apply(command) == Granted([0, 1], 2)
    new = desk.attach("a", takeover=True, quarantine_ms=0).epoch
    assert desk.apply(command) == Fenced(new)


@pytest.mark.parametrize("end", ["detach", "expiry", "reclaim"])
def test_engine_without_a_lease_is_never_told_of_the_blocks_of_one_that_ended(end: str) -> None:
    desk = Desk(8)
    command = Allocate("a", 0, "r1", 1, 2)
    step = Step("a", 0, "r2", 0, [], [2], [], ALL)
    assert desk.apply(command) == Granted([0, 1], 2)
    desk.apply(step)
    if end == "reclaim":
        desk.reclaim("a")
    else:
        desk.attach("a")
        if end == "detach":
            desk.detach("a")
        else:
            desk.now_ms = 1000
            (expire,) = leases.due(desk.pool, 1000, 0)
            desk.apply(expire)
    desk.epochs.pop("a", None)
    assert desk.allocate(1, 3, engine="b") == [2, 1, 0]
    assert desk.apply(command) == Fenced(0)
    assert desk.apply(step) == Fenced(0)
    # Nor is the id free for something else, or for a later engine of the same name.
    assert desk.apply(Allocate("a", 0, "r1", 9, 1)) == Fenced(0)
    desk.allocate(5, engine="a")
    assert desk.apply(command) == Fenced(0)
    assert desk.table(1, engine="b") == [2, 1, 0]


def test_repeated_request_lets_its_lease_last() -> None:
    desk = Desk(8)
    epoch = desk.attach("a", ttl_ms=1000).epoch
    command = Allocate("a", epoch, "r1", 1, 2)
    desk.apply(command)
    desk.now_ms = 900
    desk.apply(command)
    assert desk.pool.engines["a"].deadline_ms == 1900


def test_results_that_are_stale_are_forgotten_like_others() -> None:
    cache: Cache = IdempotencyCache(results_max=2)
    first = Allocate("a", 0, "r1", 1, 1)
    cache.put(key_of(first), first, Granted([0], 1))
    cache.end("a")
    assert cache.results[key_of(first)][2]
    for name in ("r2", "r3"):
        command = Allocate("a", 0, name, 1, 1)
        cache.put(key_of(command), command, Granted([0], 1))
    assert key_of(first) not in cache.results


def test_rejected_command_is_not_remembered() -> None:
    desk = Desk(8, sequences_max=1)
    desk.allocate(1)
    command = Allocate("a", 0, "r1", 2, 1)
    desk.apply(command)
    desk.free(1)
    assert desk.apply(command) == Granted([0], 1)


def test_steps_of_a_lease_are_numbered() -> None:
    desk = Desk(8)
    epoch = desk.attach("a").epoch
    steps = [Step("a", epoch, "", n, [], [n], [], ALL) for n in range(4)]
    assert desk.apply(steps[2]) == StepOutOfOrder(1)
    twice(desk, steps[1])
    twice(desk, steps[2])
    assert desk.apply(steps[1]) == StepOutOfOrder(3)
    other = Step("a", epoch, "", 2, [], [9], [], ALL)
    assert desk.apply(other) == IdReused("step.step_id")
    assert desk.attach("a", epoch=epoch).last_step_id == 2
    assert desk.attach("a", takeover=True).last_step_id == 0


def test_a_step_known_by_its_step_id_is_not_remembered_anew() -> None:
    desk = Desk(8)
    epoch = desk.attach("a").epoch
    step = Step("a", epoch, "r", 1, [], [1], [], ALL)
    answer = twice(desk, step)
    desk.pool.cache.forget(key_of(step))
    assert desk.apply(step) == answer
    assert desk.replayed
    assert not desk.pool.knows(step)


def test_the_cache_forgets_the_oldest_results_first() -> None:
    cache: Cache = IdempotencyCache(results_max=3)
    commands = [Free("a", 0, f"r{n}", n) for n in range(5)]
    for command in commands:
        cache.put(key_of(command), command, Freed(0))
    assert [key_of(command) in cache.results for command in commands] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_the_cache_counts_the_numbers_in_its_results() -> None:
    cache: Cache = IdempotencyCache(results_max=4)
    small = Free("a", 0, "small", 1)
    cache.put(key_of(small), small, Freed(0))
    size = 4 * NUMBERS_PER_RESULT
    large = Allocate("a", 0, "large", 1, size)
    cache.put(key_of(large), large, Granted(list(range(size)), size))
    assert key_of(small) in cache.results
    more = Allocate("a", 0, "more", 1, 1)
    cache.put(key_of(more), more, Granted([0], 1))
    assert key_of(small) not in cache.results
    assert key_of(large) not in cache.results
    assert cache.numbers == 1


def test_pool_that_remembers_nothing() -> None:
    desk = Desk(4)
    desk.pool.cache.results_max = 0
    command = Allocate("a", 0, "r1", 1, 1)
    assert desk.pool.apply(command, STAMP) == (Granted([0], 1), False)
    assert desk.pool.apply(command, STAMP) == (Granted([1], 2), False)
