"""Requests that no stub makes: wrong bytes, too many bytes, any bytes.

After each the server's state is what it was, to the last counter, and a recount finds the same.
"""

from contextlib import suppress
from typing import Any, NamedTuple

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvblock.v1 import admin_pb2
from kvblock.v1 import kvblock_pb2 as pb
from tests.conformance.arbitrary import bytes_of
from tests.conformance.bench import ENDS_SERVER, MESSAGE_BYTES_MAX, METHODS, ServerBench, path_of
from tests.conformance.cases import Expected
from tests.conformance.driving import read_status
from tests.conformance.malformed import ATTACH, BYTES, Bytes, padding
from tests.examples import examples

TIMEOUT = 30.0
CODES = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
LASTING = [method for method in METHODS if method != ENDS_SERVER]


def send(
    desk: ServerBench, method: str, messages: tuple[bytes, ...]
) -> tuple[list[bytes], Expected]:
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
    trailers = dict(call.trailing_metadata() or ())
    details = trailers.get("grpc-status-details-bin", b"")
    return answers, read_status(call.code().name, details, trailers)


class State(NamedTuple):
    """All that a server tells of its pools."""

    stats: pb.StatsResponse
    audit: admin_pb2.AuditResponse


def state_of(desk: ServerBench) -> State:
    """The state as it is now: whatever counts is in it.

    What engines lack is not: it is advice, and ends with time.
    """
    stats = desk.stats()
    for one in (*stats.pools, *(engine for pool in stats.pools for engine in pool.engines)):
        for field in ("want_blocks", "idle_blocks", "owed_blocks"):
            one.ClearField(field)
    return State(stats, desk.audit())


def attached(before: State, after: State) -> State:
    """The state that there has to be when of all messages only the attach was carried out."""
    expected = pb.StatsResponse()
    expected.CopyFrom(before.stats)
    (main,) = (pool for pool in expected.pools if pool.pool == "main")
    main.revision += 1
    epochs = [one.epoch for pool in after.stats.pools for one in pool.engines]
    assert len(epochs) == 1
    assert epochs[0] > 0
    main.engines.add(engine="default", attached=True, epoch=epochs[0])
    return State(expected, before.audit)


def check_nothing_else(desk: ServerBench, before: State, messages: tuple[bytes, ...]) -> None:
    """Of a call that failed nothing was carried out but an attach that came before the fault."""
    while desk.streaming():
        pass
    after = state_of(desk)
    if len(messages) > 1:
        assert messages[0] == ATTACH
        before = attached(before, after)
        desk.empty()
    assert after == before


@pytest.fixture(scope="module", autouse=True)
def _empty(desk: ServerBench) -> None:
    desk.empty()


@pytest.mark.parametrize("case", BYTES, ids=lambda case: case.name)
def test_bytes(case: Bytes, desk: ServerBench) -> None:
    before = state_of(desk)
    answers, status = send(desk, case.method, case.messages)
    assert status == case.error
    # gRPC may throw away the answers that came before an error.
    assert len(answers) < len(case.messages)
    check_nothing_else(desk, before, case.messages)


@pytest.mark.parametrize("method", LASTING)
def test_longest_message_is_read(method: str, desk: ServerBench) -> None:
    if METHODS[method].client_streaming:
        data = ATTACH + padding(MESSAGE_BYTES_MAX - len(ATTACH))
    else:
        data = padding(MESSAGE_BYTES_MAX)
    _, status = send(desk, method, (data,))
    assert status.reason not in ("REQUEST_LIMIT", "MALFORMED_MESSAGE")
    desk.audit()


@pytest.mark.parametrize("method", LASTING)
def test_any_bytes(method: str, desk: ServerBench) -> None:
    is_stream = METHODS[method].client_streaming

    @settings(
        max_examples=examples(100),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(data=bytes_of(method), attach=st.booleans())
    def any_bytes(data: bytes, attach: bool) -> None:
        if is_stream:
            desk.empty()
        before = state_of(desk)
        messages = (ATTACH, data) if is_stream and attach else (data,)
        _, status = send(desk, method, messages)
        assert status.code in CODES, status
        assert (status.reason is None) == (status.code == "OK")
        if status.code != "OK":
            check_nothing_else(desk, before, messages)
        desk.audit()

    any_bytes()
    desk.empty()
