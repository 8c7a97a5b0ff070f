"""When a call is made again, and when it is given up."""

from time import monotonic

import pytest

from kvblock.errors import (
    ErrorReason,
    FailedPreconditionError,
    KVBlockError,
    RateLimitedError,
    Then,
    UnavailableError,
)
from kvblock.retry import DELAY_MAX, FIRST_DELAY_MAX, Retries, backoff


def unavailable(
    reason: ErrorReason | None = None, retry_after: float | None = None
) -> UnavailableError:
    error = UnavailableError("gone", reason=reason)
    error.retry_after = retry_after
    return error


def test_delays_grow_up_to_a_limit_and_are_random() -> None:
    for tries in (1, 2, 5, 50, 10_000):
        limit = min(DELAY_MAX, FIRST_DELAY_MAX * 2 ** min(tries - 1, 20))
        delays = [backoff(tries) for _ in range(500)]
        assert all(0 <= delay <= limit for delay in delays)
        assert min(delays) < limit / 4
        assert max(delays) > limit * 3 / 4


def test_the_server_is_not_tried_sooner_than_it_wants() -> None:
    retries = Retries(monotonic(), 60.0)
    for _ in range(20):
        assert retries.delay(unavailable(retry_after=1.5)) >= 1.5


@pytest.mark.parametrize("then", Then)
def test_what_the_server_says_decides_whether_there_is_another_try(then: Then) -> None:
    for kind in (KVBlockError, RateLimitedError, UnavailableError, FailedPreconditionError):
        failure = kind("no", then=then)
        retries = Retries(monotonic(), 60.0)
        if then in (Then.REPEAT, Then.RESUME):
            assert retries.delay(failure) <= FIRST_DELAY_MAX
            continue
        with pytest.raises(kind) as caught:
            retries.delay(failure)
        assert caught.value is failure


def test_no_try_begins_after_the_timeout() -> None:
    failure = unavailable(retry_after=2.0)
    with pytest.raises(UnavailableError) as caught:
        Retries(monotonic(), 1.0).delay(failure)
    assert caught.value is failure
    with pytest.raises(UnavailableError):
        Retries(monotonic() - 1.0, 1.0).delay(unavailable())


def test_without_a_timeout_there_is_no_end() -> None:
    retries = Retries(monotonic() - 1e9, None)
    assert retries.remaining() is None
    for _ in range(100):
        assert retries.delay(unavailable()) <= DELAY_MAX


def test_without_retries_there_is_one_try() -> None:
    with pytest.raises(UnavailableError):
        Retries(monotonic(), None, enabled=False).delay(unavailable())


def test_what_is_told_in_the_end_is_that_the_fate_is_unknown() -> None:
    """A first try that may have been carried out counts more than a later one that was refused."""
    lost, draining = unavailable(), unavailable(ErrorReason.DRAINING, retry_after=5.0)
    assert (lost.fate_unknown, draining.fate_unknown) == (True, False)
    retries = Retries(monotonic(), 2.0)
    retries.delay(lost)
    with pytest.raises(UnavailableError) as caught:
        retries.delay(draining)
    assert caught.value is lost
