"""The state of a lease, and which lease a call is made under."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from kvblock import fencing
from kvblock.errors import ClosedError, InvalidArgumentError, LeaseLostError
from kvblock.lease import AttachOptions, Lease, Leases
from kvblock.lease_user import LeaseUser, LeaseUsers
from kvblock.v1 import kvblock_pb2 as pb


def test_it_lasts_from_when_the_call_was_sent() -> None:
    sent = monotonic() - 4.0
    lease = Lease("e", 7, 10.0, sent)
    assert 5.0 < lease.remaining <= 6.0
    lease.check()
    lease.confirm(sent + 2.0, 10.0)
    assert 7.0 < lease.remaining <= 8.0
    lease.confirm(sent + 1.0, 10.0)
    assert lease.remaining > 7.0


def test_an_answer_that_is_read_late_takes_nothing_from_it() -> None:
    sent = monotonic() - 4.0
    lease = Lease("e", 7, 2.0, sent)
    lease.confirm(sent + 3.9, 2.0)
    assert lease.answered(sent)
    assert lease.remaining > 1.0
    lease = Lease("e", 7, 2.0, sent)
    assert not lease.answered(sent + 1.0)


def test_one_whose_time_has_passed_is_lost_for_good() -> None:
    lease = Lease("e", 7, 1.0, monotonic() - 2.0)
    assert lease.remaining == 0
    for _ in range(2):
        with pytest.raises(LeaseLostError, match="was not renewed within its 1 s"):
            lease.check()
    lease.confirm(monotonic(), 10.0)
    assert lease.ended
    assert lease.remaining == 0
    lease.confirmed_at = monotonic()
    with pytest.raises(LeaseLostError):
        lease.check()


def test_one_that_was_released_is_not_lost() -> None:
    lease = Lease("e", 7, 10.0, monotonic())
    lease.release()
    lease.lose(LeaseLostError("too late"))
    assert lease.lost is None
    with pytest.raises(ClosedError):
        lease.check()


def test_a_detach_is_tried_no_longer_than_the_lease_lasts() -> None:
    for timeout, least, most in ((None, 9.0, 10.0), (5.0, 5.0, 5.0), (60.0, 9.0, 10.0)):
        lease = Lease("e", 7, 10.0, monotonic())
        limit = lease.release_for_detach(timeout)
        assert limit is not None
        assert least <= limit <= most
        assert lease.ended


def test_which_lease_a_call_is_made_under() -> None:
    leases = Leases("p", "e", 3)
    request = pb.FreeRequest(pool="p", engine="e")
    assert fencing.fence(leases, request) is None
    assert request.epoch == 3
    assert fencing.fence(leases, pb.FreeRequest(pool="p", engine="other")) is None
    lease = Lease("default", 7, 10.0, monotonic())
    leases.add(lease, "default", "", "main")
    for pool, engine in (("", "default"), ("main", "default"), ("", ""), ("main", "")):
        request = pb.FreeRequest(pool=pool, engine=engine)
        assert fencing.fence(leases, request) is lease
        assert request.epoch == 7
    lease.lose(LeaseLostError("gone"))
    with pytest.raises(LeaseLostError, match="gone"):
        fencing.fence(leases, pb.FreeRequest())
    leases.forget(lease)
    assert fencing.fence(leases, pb.FreeRequest()) is None


def test_an_answer_that_comes_after_the_end_is_not_used() -> None:
    lease = Lease("e", 7, 1.0, monotonic() - 5.0)
    with pytest.raises(LeaseLostError):
        fencing.answered(lease, monotonic() - 2.0)


def test_request_ids_differ_and_those_given_are_kept() -> None:
    ids = {fencing.identify(None) for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(one) for one in ids} == {32}
    assert fencing.identify("mine") == "mine"


MANY = [str(number) for number in range(20_000)]
"""Names enough for threads to meet while one goes through them."""


async def awaited(_: LeaseLostError) -> None:
    """Would never run."""


class Awaited:
    """Would never run either."""

    async def __call__(self, _: LeaseLostError) -> None:
        """Would never run."""


@pytest.mark.parametrize(
    "bad",
    [
        {"epoch": -1},
        {"ttl": -1.0},
        {"ttl": "1"},
        {"epoch": 2**64},
        {"on_lost": "text"},
        {"on_lost": 1},
        {"on_lost": awaited},
        {"on_lost": Awaited()},
    ],
)
def test_options_that_can_never_be(bad: dict[str, object]) -> None:
    options = {"epoch": 0, "ttl": None, "takeover": False, "on_lost": None, **bad}
    with pytest.raises(InvalidArgumentError):
        AttachOptions.of(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("callback", [None, print, [].append, lambda _: None, ValueError])
def test_what_may_be_told_of_a_loss(callback: Any) -> None:
    assert AttachOptions.of(0, None, False, callback).on_lost is callback


@pytest.fixture
def hasty() -> Iterator[Callable[..., None]]:
    """Runs functions in threads that give way to each other nearly always; raises what they do."""

    def run(*works: Callable[[], None]) -> None:
        failures: list[BaseException] = []
        start = threading.Barrier(len(works))

        def do(work: Callable[[], None]) -> None:
            start.wait()
            try:
                work()
            except BaseException as failure:  # noqa: BLE001 - raised below
                failures.append(failure)

        threads = [threading.Thread(target=do, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield run
    sys.setswitchinterval(interval)


def test_threads_share_a_table_of_leases(hasty: Callable[..., None]) -> None:
    leases = Leases("", "", 0)
    kept = Lease("kept", 1, 10.0, monotonic())
    leases.add(kept, "kept", *MANY)

    def come_and_go(name: str) -> None:
        for number in range(50):
            lease = Lease(f"{name}{number}", 1, 10.0, monotonic())
            leases.add(lease, lease.engine, "", "main")
            assert leases.under("main", lease.engine) is lease
            leases.forget(lease)
            assert leases.under("", lease.engine) is None

    hasty(lambda: come_and_go("a"), lambda: come_and_go("b"))
    assert all(leases.under(pool, "kept") is kept for pool in MANY)


def test_a_lease_is_forgotten_twice_at_once(hasty: Callable[..., None]) -> None:
    leases = Leases("", "", 0)
    for _ in range(3):
        lease = Lease("e", 1, 10.0, monotonic())
        leases.add(lease, "e", *MANY)
        hasty(*[lambda lease=lease: leases.forget(lease)] * 3)
        assert not any(leases.under(pool, "e") for pool in MANY)


def test_a_lease_that_is_forgotten_late_leaves_its_successor(hasty: Callable[..., None]) -> None:
    leases = Leases("", "", 0)
    before = Lease("e", 1, 10.0, monotonic())
    leases.add(before, "e", *MANY)
    for epoch in range(20):
        after = Lease("e", epoch, 10.0, monotonic())
        hasty(
            lambda lease=before: leases.forget(lease),
            lambda lease=after: leases.add(lease, "e", *MANY),
        )
        # The threads may have come in the harmless order only.
        leases.forget(before)
        assert all(leases.under(pool, "e") is after for pool in MANY)
        before = after


class Held(LeaseUser):
    """What a client has made."""


def test_a_client_closes_what_is_still_in_use() -> None:
    users: LeaseUsers[Held] = LeaseUsers()
    kept, forgotten, in_a_cycle = Held(), Held(), Held()
    in_a_cycle.__dict__["itself"] = in_a_cycle
    assert all(users.add(one) for one in (kept, forgotten, in_a_cycle))
    del forgotten, in_a_cycle
    gc.collect()
    assert users.close() == [kept]
    late = Held()
    assert not users.add(late)


def test_threads_share_what_a_client_has_made(hasty: Callable[..., None]) -> None:
    users: LeaseUsers[Held] = LeaseUsers()
    made = [Held() for _ in MANY]
    for one in made:
        users.add(one)
    refused: list[Held] = []
    closed: list[Held] = []
    over = threading.Event()

    def make() -> None:
        while not over.is_set():
            one = Held()
            made.append(one)
            if not users.add(one):
                refused.append(one)

    def close() -> None:
        try:
            closed.extend(users.close())
        finally:
            over.set()

    hasty(make, make, close)
    assert set(made) == {*closed, *refused}
