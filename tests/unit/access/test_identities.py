"""Whose credentials are whose, what a pattern matches, and how fast an identity is."""

import hmac

import pytest

from kvblock_service.access import (
    LOCAL_OPERATOR,
    Identities,
    Identity,
    RejectedCalls,
    digest_of,
)
from kvblock_service.access.rejected_calls import Denial, LoginFailure
from kvblock_service.rpc.rate import Rate
from kvblock_service.rpc.slow_readers import Writes

A = Identity("a", (digest_of("token-a"), digest_of("token-a2")), engines=("vllm-*", "x?"))
B = Identity("b", (digest_of("token-b"),), ("*.b.example", "only-b"), pools=("gpu[01]",))
C = Identity("c", certificates=("*.example",))
KNOWN = Identities((A, B, C))


def test_tokens() -> None:
    assert KNOWN.by_token(digest_of("token-a")) is A
    assert KNOWN.by_token(digest_of("token-a2")) is A
    assert KNOWN.by_token(digest_of("token-b")) is B
    for wrong in ("", "token-", "token-aa", "TOKEN-A"):
        assert KNOWN.by_token(digest_of(wrong)) is None


def test_every_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for token in ("token-a", "token-b", "none"):
        compared.clear()
        KNOWN.by_token(digest_of(token))
        assert len(compared) == 3


def test_certificates() -> None:
    assert KNOWN.by_certificate(["x.b.example"]) is B
    assert KNOWN.by_certificate(["else.example"]) is C
    assert KNOWN.by_certificate(["nothing", "only-b"]) is B
    assert KNOWN.by_certificate(["ONLY-B"]) is None
    assert KNOWN.by_certificate([]) is None


def test_names() -> None:
    assert [A.may_use_engine(name) for name in ("vllm-", "vllm-9", "xy", "x", "avllm-1")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [B.may_use_pool(name) for name in ("gpu0", "gpu1", "gpu2", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert not A.may_use_pool("gpu0")
    assert not A.may_use_every_engine
    assert LOCAL_OPERATOR.may_use_every_engine


def test_digests_are_in_no_text() -> None:
    assert digest_of("token-a").hex() not in repr(A)
    assert repr(digest_of("token-a")) not in repr(KNOWN)


def test_a_rate_refuses_what_is_too_much_and_forgets_it() -> None:
    rate = Rate(10, now=100.0)
    assert [rate.refused_for(100.0) for _ in range(10)] == [0] * 10
    assert rate.refused_for(100.0) == pytest.approx(0.1)
    assert rate.refused_for(100.05) == pytest.approx(0.05)
    assert rate.refused_for(100.1) == 0
    assert [rate.refused_for(500.0) for _ in range(11)] == [*[0] * 10, pytest.approx(0.1)]


def test_a_rate_holds_back_one_after_the_other() -> None:
    rate = Rate(2, now=0.0)
    assert [rate.held_for(0.0) for _ in range(4)] == [0, 0, 0.5, 1.0]
    assert rate.refused_for(0.0) == pytest.approx(1.5)
    assert rate.held_for(2.0) == 0


def test_a_slow_rate_lets_one_call_through() -> None:
    rate = Rate(0.1, now=0.0)
    assert rate.refused_for(0.0) == 0
    assert rate.refused_for(0.0) == pytest.approx(10)


def test_failures_are_all_counted_and_seldom_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    failures = RejectedCalls(lambda: now[0]).logins
    for _ in range(5):
        failures.add(LoginFailure.UNKNOWN_TOKEN, peer="peer")
    failures.add(LoginFailure.NO_CREDENTIALS, peer="peer")
    now[0] += 1
    failures.add(LoginFailure.UNKNOWN_TOKEN, peer="other")
    assert failures.counts[LoginFailure.UNKNOWN_TOKEN] == 6
    told = [(one.problem, one.peer, one.failures) for one in caplog.records]  # type: ignore[attr-defined]
    unknown, none = LoginFailure.UNKNOWN_TOKEN.value, LoginFailure.NO_CREDENTIALS.value
    assert told == [(unknown, "peer", 1), (none, "peer", 1), (unknown, "other", 5)]


def test_denials_are_all_counted_and_seldom_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    denials = RejectedCalls(lambda: now[0]).denials
    for number in range(5):
        denials.add(Denial.ENGINE, peer="peer", identity="trainer", what=f"be engine '{number}'")
    what = "call Audit, which is for admins"
    denials.add(Denial.ADMIN, peer="peer", identity="trainer", what=what)
    now[0] += 1
    denials.add(Denial.ENGINE, peer="other", identity="hasty", what="be engine 'x'")
    assert denials.counts == {Denial.ENGINE: 6, Denial.POOL: 0, Denial.ADMIN: 1}
    told = [(one.identity, one.what, one.peer, one.failures) for one in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        ("trainer", "be engine '0'", "peer", 1),
        ("trainer", "call Audit, which is for admins", "peer", 1),
        ("hasty", "be engine 'x'", "other", 5),
    ]


def test_a_write_is_cut_off_once_and_only_when_it_lasts() -> None:
    cut: list[bool] = []
    writes = Writes(lambda: cut.append(True))
    for _ in range(10):
        writes.look()
        writes.begun += 1
        writes.look()
        writes.ended += 1
    assert not cut
    writes.begun += 1
    for _ in range(4):
        writes.look()
        assert not cut
    for _ in range(3):
        writes.look()
    assert cut == [True]
    assert writes.is_cut_off
