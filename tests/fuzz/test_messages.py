"""Random messages with extreme values at every method, one after the other, at one server.

What one leaves behind (leases, tables, pools, waiting calls) the next one meets.
"""

from contextlib import suppress
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.arbitrary import messages_of
from tests.conformance.bench import ENDS_SERVER, METHODS, path_of
from tests.fuzz.conftest import ROUNDS, Target

TIMEOUT = 0.5
EXPECTED = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"),
    # Its own timeout: a call that waits for blocks.
    "DEADLINE_EXCEEDED",
}
METHOD_NAMES = [name for name in METHODS if name != ENDS_SERVER]


def call_of(name: str) -> st.SearchStrategy[tuple[str, list[Message]]]:
    """A method, and the messages for it: several for a stream."""
    most = 5 if METHODS[name].client_streaming else 1
    messages = st.lists(messages_of(name), min_size=1, max_size=most)
    return messages.map(lambda found: (name, found))


CALLS = st.sampled_from(METHOD_NAMES).flatmap(call_of)


def carry_out(channel: Any, name: str, messages: list[Message]) -> str:
    """Make a call; its status."""
    data = [message.SerializeToString() for message in messages]
    path = f"/{path_of(name)}"
    if METHODS[name].client_streaming:
        call = channel.stream_stream(path)(iter(data), timeout=TIMEOUT)
        with suppress(grpc.RpcError):
            list(call)
    elif METHODS[name].server_streaming:
        call = channel.unary_stream(path)(data[0], timeout=TIMEOUT)
        with suppress(grpc.RpcError):
            list(call)
    else:
        call = channel.unary_unary(path).future(data[0], timeout=TIMEOUT)
        with suppress(grpc.RpcError):
            call.result()
    return str(call.code().name)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_any_calls_in_any_order(kind: str, target: Target) -> None:
    address = f"unix:{target.unix}" if kind == "unix" else target.tcp

    @settings(
        max_examples=60 * ROUNDS,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(CALLS, min_size=1, max_size=6))
    def any_calls(calls: list[tuple[str, list[Message]]]) -> None:
        for name, messages in calls:
            status = carry_out(channel, name, messages)
            assert status in EXPECTED, f"{name}: {status}"
        target.check()

    with grpc.insecure_channel(address) as channel:
        any_calls()
    target.check_everywhere()
