"""Requests that no stub makes: wrong bytes, too many bytes, any bytes.

After each the server's state is what it was, and a recount finds nothing wrong.
"""

from contextlib import suppress
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conformance.arbitrary import bytes_of
from tests.conformance.bench import ENDS_SERVER, MESSAGE_BYTES_MAX, METHODS, Bench, path_of
from tests.conformance.cases import Expected
from tests.conformance.driving import read_status
from tests.conformance.malformed import ATTACH, BYTES, Bytes, padding

TIMEOUT = 30.0
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
LASTING = [method for method in METHODS if method != ENDS_SERVER]


def send(desk: Bench, method: str, messages: tuple[bytes, ...]) -> tuple[list[bytes], Expected]:
    """Send bytes and read the answers' bytes and the status."""
    path = f"/{path_of(method)}"
    streaming = METHODS[method].client_streaming
    answers: list[bytes] = []
    channel: Any = desk.channel
    if streaming:
        call = channel.stream_stream(path)(iter(messages), timeout=TIMEOUT)
    else:
        call = channel.unary_unary(path).future(*messages, timeout=TIMEOUT)
    # The call itself tells its status.
    with suppress(grpc.RpcError):
        answers += call if streaming else [call.result()]
    details = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    return answers, read_status(call.code().name, details)


def held(desk: Bench) -> list[Any]:
    """What there is in each pool."""
    return [
        (pool.pool, pool.total_blocks, pool.free_blocks, pool.sequences, pool.engines[:])
        for pool in desk.stats().pools
    ]


@pytest.fixture(scope="module", autouse=True)
def _empty(desk: Bench) -> None:
    desk.empty()


@pytest.mark.parametrize("case", BYTES, ids=lambda case: case.name)
def test_bytes(case: Bytes, desk: Bench) -> None:
    before = held(desk)
    answers, status = send(desk, case.method, case.messages)
    assert status == case.error
    # gRPC may throw away the answers that came before an error.
    assert len(answers) < len(case.messages)
    while desk.streaming():
        pass
    if case.messages[0] == ATTACH:
        desk.empty()
    assert held(desk) == before
    desk.audit()


@pytest.mark.parametrize("method", LASTING)
def test_longest_message_is_read(method: str, desk: Bench) -> None:
    if METHODS[method].client_streaming:
        data = ATTACH + padding(MESSAGE_BYTES_MAX - len(ATTACH))
    else:
        data = padding(MESSAGE_BYTES_MAX)
    _, status = send(desk, method, (data,))
    assert status.reason not in ("REQUEST_LIMIT", "MALFORMED_MESSAGE")
    desk.audit()


@pytest.mark.parametrize("method", LASTING)
def test_any_bytes(method: str, desk: Bench) -> None:
    is_stream = METHODS[method].client_streaming

    @settings(
        max_examples=100,
        deadline=None,
        print_blob=True,
        derandomize=False,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(data=bytes_of(method), attached=st.booleans())
    def any_bytes(data: bytes, attached: bool) -> None:
        if is_stream:
            desk.empty()
        before = held(desk)
        messages = (ATTACH, data) if is_stream and attached else (data,)
        _, status = send(desk, method, messages)
        assert status.code in CODES, status
        assert (status.reason is None) == (status.code == "OK")
        if status.code != "OK":
            while desk.streaming():
                pass
            if is_stream and attached:
                # The attach was carried out, and what followed it was not.
                desk.empty()
            assert held(desk) == before
        desk.audit()

    any_bytes()
    desk.empty()
