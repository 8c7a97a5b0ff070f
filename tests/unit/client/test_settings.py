"""The channel options of a client."""

from kvblock.settings import CHANNEL_OPTIONS

OPTIONS = dict(CHANNEL_OPTIONS)


def test_each_option_is_there_once() -> None:
    assert len(OPTIONS) == len(CHANNEL_OPTIONS)


def test_a_connection_is_made_again_soon_but_never_without_a_pause() -> None:
    first = OPTIONS["grpc.initial_reconnect_backoff_ms"]
    longest = OPTIONS["grpc.max_reconnect_backoff_ms"]
    timeout = OPTIONS["grpc.min_reconnect_backoff_ms"]
    # gRPC takes nothing below 100 ms.
    assert first == 100
    assert first < longest <= 1000
    # A handshake over a slow network has to fit; a hung one must not take a lease's whole TTL.
    assert longest < timeout <= 5000
