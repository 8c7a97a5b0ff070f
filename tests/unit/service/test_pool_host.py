"""The only writer of a pool: its wait queue, its limits, and what it shows of the pool."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kvblock_service.core import listing
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Answer, Freed, Granted, RefusalReason, Refused, StepPolicy
from kvblock_service.core.listing import EngineState, SequenceRow
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.errors import StateLimit
from kvblock_service.pool_host import PoolHost
from tests.commands import allocate, reclaim, step
from tests.commands import free as free_of

LONG = 3600.0
SHORT = 0.001


def pool_host(total: int = 4, wait_queue_max: int = 8, sequences_max: int = 16) -> PoolHost:
    geometry = Geometry("main", total, block_size=16, device_id=7)
    return PoolHost(Pool(geometry, Bounds(2, sequences_max, 8)), wait_queue_max)


class Waiter:
    """An allocation of one engine that waits; each is a sequence of its own."""

    def __init__(self, host: PoolHost, sequence_id: int, num_blocks: int, max_wait: float) -> None:
        command = allocate("a", sequence_id, num_blocks)
        self.task = asyncio.create_task(host.allocate(command, max_wait))

    @property
    def waits(self) -> bool:
        return not self.task.done()

    def blocks(self) -> list[int]:
        outcome = self.task.result()
        assert isinstance(outcome, Granted), outcome
        return outcome.blocks


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def queued(host: PoolHost, *wanted: int, max_wait: float = LONG) -> list[Waiter]:
    waiters = []
    for row, num_blocks in enumerate(wanted):
        waiters.append(Waiter(host, 100 + row, num_blocks, max_wait))
        await settle()
    return waiters


def filled(**sizes: int) -> PoolHost:
    """A pool whose blocks are all held, one by each of the sequences 0, 1, 2, ..."""
    host = pool_host(**sizes)
    for sequence_id in range(host.geometry.total_blocks):
        host.apply(allocate("b", sequence_id, 1))
    return host


def free(host: PoolHost, sequence_id: int) -> None:
    assert host.apply(free_of("b", sequence_id)) == (Freed(1), False)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def is_sound(host: PoolHost) -> bool:
    report = host.locked(audit)
    return not report.violations and not host.state().waiting


def test_waiting_allocation_is_granted_when_blocks_come_back() -> None:
    async def scenario() -> None:
        host = filled()
        (waiter,) = await queued(host, 2)
        assert host.state().waiting == 1
        free(host, 3)
        await settle()
        assert waiter.waits
        free(host, 1)
        await settle()
        assert waiter.blocks() == [1, 3]
        assert is_sound(host)

    run(scenario())


def test_first_come_first_served() -> None:
    async def scenario() -> None:
        host = filled()
        first, second, third = await queued(host, 1, 1, 1)
        free(host, 0)
        await settle()
        assert (first.waits, second.waits, third.waits) == (False, True, True)
        free(host, 1)
        await settle()
        assert (second.waits, third.waits) == (False, True)
        free(host, 2)
        await settle()
        assert [w.blocks() for w in (first, second, third)] == [[0], [1], [2]]
        assert is_sound(host)

    run(scenario())


def test_one_release_serves_as_many_as_fit() -> None:
    async def scenario() -> None:
        host = filled()
        first, second, third = await queued(host, 1, 2, 2)
        host.apply(reclaim("b"))
        await settle()
        assert first.blocks() == [3]
        assert second.blocks() == [2, 1]
        assert third.waits
        host.apply(free_of("a", 100))
        await settle()
        assert third.blocks() == [3, 0]
        assert is_sound(host)

    run(scenario())


def test_step_wakes_those_who_wait() -> None:
    async def scenario() -> None:
        host = filled()
        (waiter,) = await queued(host, 2)
        host.apply(step("b", [0, 1, 2], [9], [], StepPolicy.ALL_OR_NOTHING))
        await settle()
        assert waiter.blocks() == [1, 0]
        assert is_sound(host)

    run(scenario())


def test_head_of_the_queue_holds_up_those_behind_it() -> None:
    async def scenario() -> None:
        host = filled()
        large, small = await queued(host, 2, 1)
        free(host, 0)
        await settle()
        assert large.waits
        assert small.waits
        late = Waiter(host, 200, 1, LONG)
        await settle()
        assert late.waits
        # Who does not wait may pass them.
        assert await host.allocate(allocate("a", 300, 1), 0.0) == Granted([0], 1)
        free(host, 1)
        free(host, 2)
        free(host, 3)
        await settle()
        assert (large.blocks(), small.blocks(), late.waits) == ([3, 2], [1], True)
        host.apply(free_of("a", 300))
        await settle()
        assert late.blocks() == [0]
        assert is_sound(host)

    run(scenario())


def test_wait_that_ends_in_vain_is_a_refusal() -> None:
    async def scenario() -> None:
        host = filled()
        refused = Refused(RefusalReason.POOL_EXHAUSTED, free_blocks=0, needed=2)
        assert await host.allocate(allocate("a", 1, 2), SHORT) == refused
        assert host.state().refused_total[RefusalReason.POOL_EXHAUSTED] == 1
        assert is_sound(host)

    run(scenario())


def test_those_behind_an_expired_wait_are_served() -> None:
    async def scenario() -> None:
        host = filled()
        large = Waiter(host, 100, 2, SHORT)
        await settle()
        small = Waiter(host, 101, 1, LONG)
        await settle()
        free(host, 0)
        assert isinstance(await large.task, Refused)
        await settle()
        assert small.blocks() == [0]
        assert is_sound(host)

    run(scenario())


def test_more_than_the_pool_does_not_wait() -> None:
    async def scenario() -> None:
        host = pool_host()
        outcome = await host.allocate(allocate("a", 1, 5), LONG)
        assert outcome == Refused(RefusalReason.EXCEEDS_POOL, free_blocks=4, needed=5)

    run(scenario())


def test_what_fits_does_not_wait() -> None:
    async def scenario() -> None:
        assert await pool_host().allocate(allocate("a", 1, 4), LONG) == Granted([0, 1, 2, 3], 4)

    run(scenario())


def test_cancelled_wait_takes_nothing_and_lets_the_next_one_on() -> None:
    async def scenario() -> None:
        host = filled()
        large, small = await queued(host, 2, 1)
        free(host, 0)
        await settle()
        large.task.cancel()
        await settle()
        assert large.task.cancelled()
        assert small.blocks() == [0]
        assert host.table("a", 100) is None
        assert is_sound(host)

    run(scenario())


@pytest.mark.parametrize("turns", range(8))
def test_cancelled_while_it_is_being_woken(turns: int) -> None:
    """However far the wake-up has come: either cancelled and nothing taken, or granted before."""

    async def scenario() -> None:
        host = filled()
        first, second = await queued(host, 1, 1)
        free(host, 0)
        for _ in range(turns):
            await asyncio.sleep(0)
        granted_before = first.task.done()
        first.task.cancel()
        await settle()
        assert first.task.cancelled() != granted_before
        assert (host.table("a", 100) is None) != granted_before
        assert second.waits == granted_before
        second.task.cancel()
        await settle()
        assert is_sound(host)

    run(scenario())


def test_wait_queue_max() -> None:
    async def scenario() -> None:
        host = filled(wait_queue_max=1)
        (waiter,) = await queued(host, 1)
        with pytest.raises(StateLimit) as caught:
            await host.allocate(allocate("a", 1, 1), LONG)
        assert caught.value.metadata == {"limit": "wait_queue_max", "max": "1", "pool": "main"}
        free(host, 0)
        await settle()
        assert waiter.blocks() == [0]
        assert is_sound(host)

    run(scenario())


def test_limit_crossed_while_waiting_is_raised() -> None:
    async def scenario() -> None:
        host = pool_host(total=4, sequences_max=2)
        host.apply(allocate("a", 1, 1))
        host.apply(allocate("a", 2, 1))
        host.apply(allocate("b", 1, 2))
        doomed = Waiter(host, 100, 1, LONG)
        await settle()
        next_one = asyncio.create_task(host.allocate(allocate("a", 2, 2), LONG))
        await settle()
        host.apply(free_of("b", 1))
        await settle()
        with pytest.raises(StateLimit, match="sequences_per_engine_max = 2"):
            doomed.task.result()
        assert next_one.result() == Granted([3, 2], 3)
        assert is_sound(host)

    run(scenario())


def test_end_of_waiting_answers_all() -> None:
    async def scenario() -> None:
        host = filled()
        waiters = await queued(host, 2, 1, 1)
        free(host, 0)
        host.stop_waiting()
        await settle()
        outcomes: list[Answer] = [waiter.task.result() for waiter in waiters]
        assert isinstance(outcomes[0], Refused)
        assert outcomes[1] == Granted([0], 1)
        assert isinstance(outcomes[2], Refused)
        assert isinstance(await host.allocate(allocate("a", 9, 1), LONG), Refused)
        assert is_sound(host)

    run(scenario())


def test_crossed_limit_names_the_pool_and_the_engine() -> None:
    host = pool_host()
    host.apply(allocate("a", 1, 1))
    host.apply(allocate("b", 1, 1))
    with pytest.raises(StateLimit) as caught:
        host.apply(allocate("c", 1, 1))
    assert caught.value.reason == "STATE_LIMIT"
    assert caught.value.metadata == {
        "limit": "engines_max",
        "max": "2",
        "pool": "main",
        "engine": "c",
    }
    assert host.state().revision == 2


def test_state_shows_engines_by_name() -> None:
    host = pool_host()
    host.apply(allocate("b", 1, 2))
    host.apply(allocate("a", 1, 1))
    state = host.state()
    assert state.engines == [EngineState("a", 1, 1, 0, 0), EngineState("b", 2, 1, 0, 0)]
    assert (state.free_blocks, state.held_blocks, state.sequences) == (1, 3, 2)
    assert host.epoch("b") == host.epoch("zz") == 0
    assert host.available("a") == 1
    assert host.table("b", 1) == [0, 1]
    assert host.table("zz", 1) is None


def test_sequences_are_listed_by_engine_and_id() -> None:
    host = pool_host(total=16)
    for sequence_id in (9, 2, 5):
        host.apply(allocate("b", sequence_id, 1))
    host.apply(allocate("a", 7, 2))
    rows = [
        SequenceRow("a", 7, 2),
        SequenceRow("b", 2, 1),
        SequenceRow("b", 5, 1),
        SequenceRow("b", 9, 1),
    ]
    assert host.locked(listing.sequences, "", None, 10).rows == rows
    assert host.locked(listing.sequences, "", None, 2).rows == rows[:2]
    assert host.locked(listing.sequences, "", ("a", 7), 2).rows == rows[1:3]
    assert host.locked(listing.sequences, "", ("a", 100), 10).rows == rows[1:]
    assert host.locked(listing.sequences, "b", None, 10).rows == rows[1:]
    assert host.locked(listing.sequences, "b", ("b", 4), 10).rows == rows[2:]
    assert not host.locked(listing.sequences, "a", ("b", 4), 10).rows
    assert not host.locked(listing.sequences, "zz", None, 10).rows
