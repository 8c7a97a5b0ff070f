"""Calls that a server drops with CANCELLED, which nobody has asked for."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.client.flavours import Flavour


class Dropping:
    """A server that drops the first calls and grants the next; `request_ids` has those of all."""

    def __init__(self, server: grpc.Server) -> None:
        self.drops = 2
        self.request_ids: list[str] = []
        handler = grpc.unary_unary_rpc_method_handler(
            self._allocate, pb.AllocateRequest.FromString, pb.AllocateResponse.SerializeToString
        )
        handlers = {"Allocate": handler}
        generic = grpc.method_handlers_generic_handler("kvblock.v1.KVBlockService", handlers)
        server.add_generic_rpc_handlers((generic,))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"

    def _allocate(
        self, request: pb.AllocateRequest, context: grpc.ServicerContext
    ) -> pb.AllocateResponse:
        self.request_ids.append(request.request_id)
        if self.drops:
            self.drops -= 1
            context.abort(grpc.StatusCode.CANCELLED, "too many pending requests")
        return pb.AllocateResponse(granted=pb.Grant(block_numbers=[7]))


@pytest.fixture
def dropping() -> Iterator[Dropping]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        made = Dropping(server)
        server.start()
        yield made
        server.stop(None).wait()


def test_a_call_that_was_dropped_is_made_again(dropping: Dropping, flavour: Flavour) -> None:
    with flavour.entered(flavour.client(dropping.address, timeout=30.0)) as kv:
        assert flavour.do(kv.allocate(1)).block_numbers == [7]
    assert len(dropping.request_ids) == 3
    assert len(set(dropping.request_ids)) == 1


def test_without_retries_it_is_told(dropping: Dropping, flavour: Flavour) -> None:
    client = flavour.client(dropping.address, timeout=30.0, retries=False)
    with flavour.entered(client) as kv, pytest.raises(kvblock.UnavailableError) as caught:
        flavour.do(kv.allocate(1))
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert caught.value.fate_unknown
    assert "has dropped the call" in str(caught.value)
