"""What an error says in plain trailers, for clients that unpack nothing."""

import pytest

from kvblock_service.call_error import CallError, Then
from kvblock_service.errors import (
    ERRORS,
    Draining,
    EngineAttached,
    PoolExists,
    SessionState,
    SlowReader,
    StaleEpoch,
)
from kvblock_service.rpc.errors import then_trailers, trailers_of


def plain(error: CallError) -> dict[str, str | bytes]:
    """The trailers of an error without its details."""
    (key, details), *rest = trailers_of(error)
    assert key == "grpc-status-details-bin"
    assert error.reason.encode() in details
    return dict(rest)


@pytest.mark.parametrize(
    ("error", "trailers"),
    [
        (PoolExists("main"), ("POOL_EXISTS", "give_up", None, "-1")),
        (SlowReader("30"), ("SLOW_READER", "resume", None, "-1")),
        (Draining(0.0101), ("DRAINING", "repeat", "11", "11")),
        (Draining(0.0), ("DRAINING", "repeat", "0", "0")),
        (EngineAttached("main", "e", 2.5), ("ENGINE_ATTACHED", "give_up", "2500", "-1")),
        (StaleEpoch("main", "e", 3, 4), ("STALE_EPOCH", "lease_lost", None, "-1")),
        (StaleEpoch("main", "e", 0, 4), ("STALE_EPOCH", "give_up", None, "-1")),
        (SessionState("step", "is early"), ("SESSION_STATE", "give_up", None, "-1")),
        (SessionState.late("attach", "is late"), ("SESSION_STATE", "repeat", None, None)),
    ],
    ids=str,
)
def test_trailers_of_an_error(error: CallError, trailers: tuple[str | None, ...]) -> None:
    names = (
        *("kvblock-reason", "kvblock-then", "kvblock-retry-after-ms"),
        "grpc-retry-pushback-ms",
    )
    assert plain(error) == {name: text for name, text in zip(names, trailers, strict=True) if text}


def test_a_status_without_a_reason_says_what_to_do() -> None:
    assert then_trailers(Then.REPEAT) == (("kvblock-then", "repeat"),)
    forbidden = ("grpc-retry-pushback-ms", "-1")
    assert then_trailers(Then.GIVE_UP) == (("kvblock-then", "give_up"), forbidden)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_every_error_declares_what_its_caller_does_next(error: type[CallError]) -> None:
    assert isinstance(vars(error)["then"], Then)
