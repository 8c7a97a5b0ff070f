"""The state of a lease, and which lease a call is made under."""

from time import monotonic

import pytest

from kvblock import fencing
from kvblock.errors import ClosedError, InvalidArgumentError, LeaseLostError
from kvblock.lease import Lease, Leases, Terms
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
    assert lease.over
    assert lease.remaining == 0
    lease.confirmed_at = monotonic()
    with pytest.raises(LeaseLostError):
        lease.check()


def test_one_that_was_given_up_is_not_lost() -> None:
    lease = Lease("e", 7, 10.0, monotonic())
    lease.give_up()
    lease.lose(LeaseLostError("too late"))
    assert lease.lost is None
    with pytest.raises(ClosedError):
        lease.check()


def test_a_farewell_takes_no_longer_than_the_lease() -> None:
    for timeout, least, most in ((None, 9.0, 10.0), (5.0, 5.0, 5.0), (60.0, 9.0, 10.0)):
        lease = Lease("e", 7, 10.0, monotonic())
        limit = lease.farewell(timeout)
        assert limit is not None
        assert least <= limit <= most
        assert lease.over


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


@pytest.mark.parametrize("bad", [{"epoch": -1}, {"ttl": -1.0}, {"ttl": "1"}, {"epoch": 2**64}])
def test_terms_that_can_never_be(bad: dict[str, object]) -> None:
    terms = {"epoch": 0, "ttl": None, "takeover": False, "on_lost": None, **bad}
    with pytest.raises(InvalidArgumentError):
        Terms.of(**terms)  # type: ignore[arg-type]
