"""The calls for operators stand beside the client's own, for both clients."""

import inspect
import re
from typing import Any

import pytest

import kvblock
from kvblock._async.operator import OperatorCalls as AwaitedCalls
from kvblock._sync.operator import OperatorCalls
from kvblock.v1 import admin_pb2

RPCS = admin_pb2.DESCRIPTOR.services_by_name["KVBlockAdmin"].methods


def public(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if name[0] != "_"}


@pytest.mark.parametrize("operator", [OperatorCalls, AwaitedCalls])
def test_operators_have_the_calls_of_their_service(operator: type) -> None:
    of_the_service = {re.sub(r"(?!^)([A-Z])", r"_\1", rpc.name).lower() for rpc in RPCS}
    assert public(operator).keys() == of_the_service | {"block_tables"}


@pytest.mark.parametrize(
    ("client", "operator"),
    [(kvblock.Client, OperatorCalls), (kvblock.AsyncClient, AwaitedCalls)],
)
def test_a_client_leaves_them_as_they_are(client: type, operator: type) -> None:
    members = public(client)
    assert public(operator).items() <= members.items()
    assert not vars(client).keys() & public(operator).keys()
