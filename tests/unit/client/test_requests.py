"""What goes into requests, and what cannot."""

import math
import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from kvblock import arguments, requests, step_requests
from kvblock.errors import ErrorReason, InvalidArgumentError
from kvblock.results import StepPolicy
from kvblock.settings import ClientSettings
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.v1.admin_pb2 import AuditRequest

SETTINGS = ClientSettings.of("localhost:1", "p", "e", 5.0)


class Tensor:
    """Something that only knows how to become a list."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = list(numbers)

    def tolist(self) -> list[int]:
        return self._numbers


def generated(*numbers: int) -> Iterator[int]:
    yield from numbers


def step_of(**columns: Any) -> pb.EngineStep:
    step = pb.EngineStep()
    arguments: dict[str, Any] = {"free": (), "allocate": (), "num_blocks": ()}
    policy = columns.pop("policy", StepPolicy.ALL_OR_NOTHING)
    step_requests.fill_step(step, **{**arguments, **columns}, policy=policy)
    return step


@pytest.mark.parametrize(
    "make",
    [
        lambda *n: list(n),
        lambda *n: tuple(n),
        lambda *n: array("Q", n),
        lambda *n: memoryview(array("Q", n)),
        lambda *n: memoryview(bytearray(array("Q", n))).cast("Q"),
        lambda *n: dict.fromkeys(n),
        generated,
        Tensor,
    ],
    ids=["list", "tuple", "array", "memoryview", "cast", "keys", "generator", "tensor"],
)
def test_columns_take_any_iterable_of_numbers(make: Callable[..., Iterable[int]]) -> None:
    step = step_of(
        free=make(1, 2**64 - 1), allocate=make(7, 0, 300), num_blocks=make(1, 2**32 - 1, 5)
    )
    assert step.free_sequence_ids[:] == [1, 2**64 - 1]
    assert step.allocate_sequence_ids[:] == [7, 0, 300]
    assert step.allocate_num_blocks[:] == [1, 2**32 - 1, 5]
    assert step.policy == pb.STEP_POLICY_ALL_OR_NOTHING


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 2047, 2048, 2049, 65_536])
def test_packed_columns_are_what_protobuf_writes(length: int, seed: int) -> None:
    draw = random.Random(seed)
    free = [draw.getrandbits(64) for _ in range(length)]
    allocate = [draw.getrandbits(64) for _ in range(length)]
    plain = pb.EngineStep(
        free_sequence_ids=free,
        allocate_sequence_ids=allocate,
        policy=pb.STEP_POLICY_IN_ORDER_UNTIL_REFUSED,
    )
    step = step_of(free=free, allocate=allocate, policy=StepPolicy.IN_ORDER_UNTIL_REFUSED)
    assert step.SerializeToString() == plain.SerializeToString()


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"free": [1, -1]}, "free[1]"),
        ({"allocate": [2**64]}, "allocate[0]"),
        ({"allocate": [1, 2, "3"]}, "allocate[2]"),
        ({"free": generated(1), "allocate": generated(1, -2)}, "allocate[1]"),
        ({"allocate": [1], "num_blocks": [2**32]}, "num_blocks[0]"),
        ({"allocate": [1], "num_blocks": [1.0]}, "num_blocks[0]"),
        ({"free": 5}, "free"),
        ({"free": None}, "free"),
        ({"allocate": "12"}, "allocate"),
        ({"allocate": b"12"}, "allocate"),
        ({"free": bytearray(b"12345678")}, "free"),
        ({"allocate": bytearray(b"12345678")}, "allocate"),
        ({"allocate": [1], "num_blocks": bytearray(b"1234")}, "num_blocks"),
        ({"policy": 1}, "policy"),
    ],
)
def test_wrong_columns_name_the_field_and_the_row(columns: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        step_of(**columns)
    assert caught.value.reason is ErrorReason.INVALID_FIELD
    assert caught.value.metadata["field"] == field
    assert str(caught.value).startswith(f"{field}: ")


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, "1", None, [1]])
def test_wrong_sequence_id(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"0 to {2**64 - 1}") as caught:
        requests.of_sequence(pb.FreeRequest, SETTINGS, None, None, value)
    assert caught.value.metadata["field"] == "sequence_id"


@pytest.mark.parametrize("value", [-1, -0.5, math.nan, math.inf, "1", True, 10**12])
def test_wrong_max_wait(value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        requests.allocate(SETTINGS, None, None, 1, 1, value)
    assert caught.value.metadata["field"] == "max_wait"


def test_max_wait_keeps_its_fraction() -> None:
    request = requests.allocate(SETTINGS, None, None, 1, 1, 1.25)
    assert (request.max_wait.seconds, request.max_wait.nanos) == (1, 250_000_000)
    assert not requests.allocate(SETTINGS, None, None, 1, 1, None).HasField("max_wait")


def test_names_fall_back_to_the_client_s() -> None:
    request = requests.allocate(SETTINGS, None, None, 1, 1, None)
    assert (request.pool, request.engine) == ("p", "e")
    request = requests.allocate(SETTINGS, "", "x", 1, 1, None)
    assert (request.pool, request.engine) == ("", "x")


def test_views_are_not_narrowed_by_the_client_s_names() -> None:
    view = requests.view(pb.StatsRequest, pool=None, engine=None)
    assert view == pb.StatsRequest()
    assert requests.view(AuditRequest, pool=None) == AuditRequest()
    assert requests.list_sequences(SETTINGS, None, None, 0).engine == ""
    assert requests.list_sequences(SETTINGS, None, None, 0).pool == "p"


@pytest.mark.parametrize("value", [1, b"x", "\ud800"])
def test_wrong_name(value: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        requests.view(pb.StatsRequest, pool=value, engine=None)
    assert caught.value.metadata["field"] == "pool"


@pytest.mark.parametrize("value", [0, -1, math.nan, "5", True, 10**9])
def test_wrong_timeout(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="timeout: "):
        SETTINGS.deadline(value)


def test_deadlines() -> None:
    assert SETTINGS.deadline(None) == 5.0
    assert SETTINGS.deadline(2) == 2.0
    assert SETTINGS.deadline(math.inf) is None
    assert SETTINGS.deadline(None, wait=30.0) == 35.0
    assert SETTINGS.deadline(2, wait=30.0) == 2.0
    assert SETTINGS.deadline(None, wait=1e10) == arguments.TIMEOUT_MAX
    assert SETTINGS._replace(timeout=None).deadline(None, wait=30.0) is None


def test_shown_values_are_cut() -> None:
    assert len(arguments.invalid("field", "x" * 1000, "must not be").metadata["value"]) == 80
