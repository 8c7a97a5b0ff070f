"""The synchronous and the asyncio classes are the same but for `await`."""

import inspect
import re
from typing import Any

import pytest

import kvblock
from kvblock.async_operator import AsyncOperatorCalls
from kvblock.sync_operator import OperatorCalls
from kvblock.v1 import admin_pb2

PAIRS = [
    pytest.param(kvblock.Client, kvblock.AsyncClient, id="client"),
    pytest.param(OperatorCalls, AsyncOperatorCalls, id="operator"),
    pytest.param(kvblock.Session, kvblock.AsyncSession, id="session"),
    pytest.param(kvblock.EngineLease, kvblock.AsyncEngineLease, id="lease"),
]
RPCS = admin_pb2.DESCRIPTOR.services_by_name["KVBlockAdmin"].methods
NOT_AWAITED = {"session", "list_sequences", "list_engines", "list_blocks"}


def public(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if name[0] != "_"}


def parameters(method: Any) -> list[tuple[str, Any, Any, str]]:
    return [
        (one.name, one.kind, one.default, one.annotation)
        for one in inspect.signature(method).parameters.values()
    ]


def answer(method: Any) -> str:
    annotation: str = inspect.signature(method).return_annotation
    return annotation.replace("Async", "")


@pytest.mark.parametrize(("plain", "awaited"), PAIRS)
def test_same_members(plain: type, awaited: type) -> None:
    assert public(plain).keys() == public(awaited).keys()
    for name, member in public(plain).items():
        assert isinstance(member, property) == isinstance(public(awaited)[name], property), name


@pytest.mark.parametrize(("plain", "awaited"), PAIRS)
def test_same_methods(plain: type, awaited: type) -> None:
    for name, method in public(plain).items():
        other = public(awaited)[name]
        assert inspect.getdoc(method) == inspect.getdoc(other), name
        assert inspect.getdoc(method), name
        if not isinstance(method, property):
            assert parameters(method) == parameters(other), name
            assert answer(method) == answer(other), name
            assert inspect.iscoroutinefunction(other) == (name not in NOT_AWAITED), name


def test_same_construction() -> None:
    plain, awaited = parameters(kvblock.Client), parameters(kvblock.AsyncClient)
    assert [one[:3] for one in plain] == [one[:3] for one in awaited]
    assert inspect.getdoc(kvblock.Client) == inspect.getdoc(kvblock.AsyncClient)
    assert inspect.getdoc(kvblock.Session) == inspect.getdoc(kvblock.AsyncSession)
    assert inspect.getdoc(kvblock.EngineLease) == inspect.getdoc(kvblock.AsyncEngineLease)


@pytest.mark.parametrize("operator", [OperatorCalls, AsyncOperatorCalls])
def test_operators_have_the_calls_of_their_service(operator: type) -> None:
    of_the_service = {re.sub(r"(?!^)([A-Z])", r"_\1", rpc.name).lower() for rpc in RPCS}
    assert public(operator).keys() == of_the_service | {"block_tables"}


@pytest.mark.parametrize(
    ("client", "operator"),
    [(kvblock.Client, OperatorCalls), (kvblock.AsyncClient, AsyncOperatorCalls)],
)
def test_a_client_leaves_them_as_they_are(client: type, operator: type) -> None:
    members = public(client)
    assert public(operator).items() <= members.items()
    assert not vars(client).keys() & public(operator).keys()
