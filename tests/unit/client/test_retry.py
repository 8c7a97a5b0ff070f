"""When a call is made again, and when it is given up."""

from time import monotonic

import pytest

from kvblock.errors import ErrorReason, UnavailableError
from kvblock.retry import FIRST_PAUSE_MAX, PAUSE_MAX, Tries, backoff


def unavailable(
    reason: ErrorReason | None = None, retry_after: float | None = None
) -> UnavailableError:
    error = UnavailableError("gone", reason=reason)
    error.retry_after = retry_after
    return error


def test_pauses_grow_up_to_a_limit_and_are_random() -> None:
    for tries in (1, 2, 5, 50, 10_000):
        limit = min(PAUSE_MAX, FIRST_PAUSE_MAX * 2 ** min(tries - 1, 20))
        pauses = [backoff(tries) for _ in range(500)]
        assert all(0 <= pause <= limit for pause in pauses)
        assert min(pauses) < limit / 4
        assert max(pauses) > limit * 3 / 4


def test_the_server_is_not_tried_sooner_than_it_wants() -> None:
    tries = Tries(monotonic(), 60.0)
    for _ in range(20):
        assert tries.pause(unavailable(retry_after=1.5)) >= 1.5


def test_no_try_begins_after_the_timeout() -> None:
    failure = unavailable(retry_after=2.0)
    with pytest.raises(UnavailableError) as caught:
        Tries(monotonic(), 1.0).pause(failure)
    assert caught.value is failure
    with pytest.raises(UnavailableError):
        Tries(monotonic() - 1.0, 1.0).pause(unavailable())


def test_without_a_timeout_there_is_no_end() -> None:
    tries = Tries(monotonic() - 1e9, None)
    assert tries.remaining() is None
    for _ in range(100):
        assert tries.pause(unavailable()) <= PAUSE_MAX


def test_without_retries_there_is_one_try() -> None:
    with pytest.raises(UnavailableError):
        Tries(monotonic(), None, again=False).pause(unavailable())


def test_what_is_told_in_the_end_is_that_the_fate_is_unknown() -> None:
    """A first try that may have been carried out counts more than a later one that was refused."""
    lost, draining = unavailable(), unavailable(ErrorReason.DRAINING, retry_after=5.0)
    assert (lost.fate_unknown, draining.fate_unknown) == (True, False)
    tries = Tries(monotonic(), 2.0)
    tries.pause(lost)
    with pytest.raises(UnavailableError) as caught:
        tries.pause(draining)
    assert caught.value is lost
