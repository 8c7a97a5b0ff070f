"""The options that are handed to gRPC, which ignores those it does not know."""

from pathlib import Path

import grpc
import pytest

from kvblock.settings import CHANNEL_OPTIONS
from kvblock_service.access import RejectedCalls
from kvblock_service.rpc.edge import Edge

(_LIBRARY,) = Path(grpc.__file__).parent.glob("_cython/cygrpc.*.so")
KNOWN = _LIBRARY.read_bytes()


@pytest.mark.parametrize(
    "name", [name for name, _ in (*Edge(RejectedCalls()).options(), *CHANNEL_OPTIONS)]
)
def test_grpc_knows_each_option(name: str) -> None:
    assert name.encode() + b"\0" in KNOWN


@pytest.mark.parametrize("calls_max", [1, 4096, 20_000])
def test_what_grpc_holds_pending_is_not_less_than_what_is_served_at_once(calls_max: int) -> None:
    options = dict(Edge(RejectedCalls(), concurrent_calls_max=calls_max).options())
    pending = options["grpc.server.max_pending_requests"]
    assert pending >= calls_max
    assert options["grpc.server.max_pending_requests_hard_limit"] > pending
