"""Allocations that wait while leases begin and end, and what errors of leases name."""

import asyncio

import pytest

from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Granted,
    Reclaim,
    Step,
    StepPolicy,
)
from kvblock_service.errors import (
    EngineAttached,
    IdentityReused,
    PermissionDenied,
    StaleEpoch,
    StepId,
)
from kvblock_service.pool_host import PoolHost
from tests.unit.service.test_pool_host import (
    LONG,
    filled,
    free,
    is_sound,
    pool_host,
    queued,
    run,
    settle,
)

TTL = 60_000


def attached(host: PoolHost) -> int:
    lease, _ = host.apply(Attach("a", 0, "", takeover=False, ttl_ms=TTL, quarantine_ms=0))
    assert isinstance(lease, Attached)
    return lease.epoch


def test_a_stale_epoch_does_not_wait() -> None:
    async def scenario() -> None:
        host = filled()
        with pytest.raises(StaleEpoch) as caught:
            await host.allocate(Allocate("a", 7, "", 1, 1), LONG)
        assert caught.value.metadata["current"] == "0"
        assert is_sound(host)

    run(scenario())


def test_a_lease_that_ends_while_its_allocation_waits() -> None:
    async def scenario() -> None:
        host = filled()
        epoch = attached(host)
        waiting = asyncio.create_task(host.allocate(Allocate("a", epoch, "", 1, 1), LONG))
        await settle()
        host.apply(Detach("a", epoch, ""))
        free(host, 0)
        await settle()
        assert isinstance(waiting.exception(), StaleEpoch)
        assert host.available("a") == 1
        assert is_sound(host)

    run(scenario())


@pytest.mark.parametrize("how", ["detach", "expiry", "reclaim", "takeover", "attach"])
def test_a_lease_that_ends_wakes_the_allocations_that_wait_under_it(how: str) -> None:
    """Also behind others, which it does not let pass."""

    async def scenario() -> None:
        host = filled()
        epoch = attached(host) if how != "attach" else 0
        first = asyncio.create_task(host.allocate(Allocate("b", 0, "", 99, 2), LONG))
        await settle()
        late = asyncio.create_task(host.allocate(Allocate("a", epoch, "", 1, 1), LONG))
        await settle()
        free(host, 0)
        await settle()
        ends: dict[str, Command] = {
            "detach": Detach("a", epoch, ""),
            "expiry": Expire("a", epoch, TTL),
            "reclaim": Reclaim("a", epoch, "", TTL),
            "takeover": Attach("a", 0, "", True, TTL, TTL),
            "attach": Attach("a", 0, "", False, TTL, TTL),
        }
        host.apply(ends[how])
        await settle()
        assert isinstance(late.exception(), StaleEpoch)
        assert not first.done()
        free(host, 1)
        await settle()
        assert first.result() == Granted([1, 0], 2)
        assert is_sound(host)

    run(scenario())


def test_an_engine_without_a_lease_is_woken_in_vain_and_passes_nobody() -> None:
    async def scenario() -> None:
        host = filled()
        free(host, 0)
        host.apply(Allocate("a", 0, "", 1, 1))
        first = asyncio.create_task(host.allocate(Allocate("b", 0, "", 99, 2), LONG))
        await settle()
        second = asyncio.create_task(host.allocate(Allocate("a", 0, "", 2, 1), LONG))
        await settle()
        host.apply(Reclaim("a", 0, "", 0))
        await settle()
        assert (host.available("a"), first.done(), second.done()) == (1, False, False)
        free(host, 1)
        free(host, 2)
        await settle()
        assert (first.result(), second.result()) == (Granted([2, 1], 2), Granted([0], 1))
        assert is_sound(host)

    run(scenario())


def test_what_has_waited_is_permitted_once_more() -> None:
    async def scenario() -> None:
        host = filled()

        def permit() -> None:
            raise PermissionDenied("a", "be engine 'a'")

        command = Allocate("a", 0, "", 1, 1)
        waiting = asyncio.create_task(host.allocate(command, LONG, permit=permit))
        await settle()
        free(host, 0)
        await settle()
        assert isinstance(waiting.exception(), PermissionDenied)
        # What does not wait was permitted just before.
        assert await host.allocate(command, LONG, permit=permit) == Granted([0], 1)

    run(scenario())


def test_a_request_that_comes_again_while_it_waits_is_granted_once() -> None:
    async def scenario() -> None:
        host = filled()
        command = Allocate("a", 0, "x", 1, 1)
        first, again = (asyncio.create_task(host.allocate(command, LONG)) for _ in range(2))
        await settle()
        assert host.state().waiting == 2
        free(host, 2)
        await settle()
        assert first.result() == Granted([2], 1)
        # It needs no block, and holds up nobody.
        free(host, 3)
        await settle()
        assert again.result() == Granted([2], 1)
        assert (host.available("a"), host.table("a", 1)) == (1, [2])
        assert await host.allocate(command, LONG) == Granted([2], 1)
        assert is_sound(host)

    run(scenario())


def test_a_request_that_came_twice_does_not_wait_for_blocks_once_it_was_granted() -> None:
    async def scenario() -> None:
        host = filled()
        command = Allocate("a", 0, "x", 1, 1)
        first, again = (asyncio.create_task(host.allocate(command, LONG)) for _ in range(2))
        await settle()
        free(host, 2)
        await settle()
        assert first.result() == again.result() == Granted([2], 1)
        assert host.available("a") == 0
        assert is_sound(host)

    run(scenario())


def test_the_end_of_a_quarantine_wakes_those_who_wait() -> None:
    async def scenario() -> None:
        host = filled()
        (waiter,) = await queued(host, 2)
        host.apply(Reclaim("b", 0, "", TTL))
        await settle()
        assert waiter.waits
        assert host.state().quarantined_blocks == 4
        host.apply(EndQuarantine(1))
        await settle()
        assert waiter.blocks() == [3, 2]
        assert is_sound(host)

    run(scenario())


def test_errors_of_leases_name_what_the_client_needs() -> None:
    host = pool_host()
    epoch = attached(host)
    with pytest.raises(EngineAttached) as held:
        attached(host)
    assert held.value.metadata == {"pool": "main", "engine": "a"}
    assert held.value.retry_after is not None
    assert 0 <= held.value.retry_after <= TTL / 1000
    with pytest.raises(StaleEpoch, match="the call has no epoch") as fenced:
        host.apply(Free("a", 0, "", 1))
    where = {"pool": "main", "engine": "a"}
    assert fenced.value.metadata == {**where, "epoch": "0", "current": str(epoch)}
    host.apply(Allocate("a", epoch, "x", 1, 1))
    with pytest.raises(IdentityReused) as reused:
        host.apply(Allocate("a", epoch, "x", 2, 1))
    assert reused.value.metadata == {**where, "field": "request_id"}
    with pytest.raises(StepId) as order:
        host.apply(Step("a", epoch, "", 5, [], [], [], StepPolicy.ALL_OR_NOTHING))
    assert order.value.metadata == {"step_id": "5", "expected": "1"}


def test_a_quarantine_is_the_pool_s_or_the_lease_s_or_the_default() -> None:
    host = pool_host()
    attached(host)
    assert host.quarantine_of("a", 5) == TTL
    assert host.quarantine_of("zz", 5) == 5
    host.quarantine_ms = 0
    assert host.quarantine_of("a", 5) == 0


def test_the_state_shows_leases() -> None:
    host = pool_host()
    epoch = attached(host)
    (engine,) = host.state().engines
    assert engine[:4] == ("a", 0, 0, epoch)
    assert 0 <= engine.expires_in_ms <= TTL
