"""Fields of requests: what passes, and which fact an error names."""

from collections.abc import Callable

import pytest
from google.protobuf.duration_pb2 import Duration

from kvblock_service.call_error import CallError
from kvblock_service.errors import InvalidField, RequestLimit
from kvblock_service.rpc import validate
from kvblock_service.rpc.validate import LeaseTerms, RequestLimits

LIMITS = RequestLimits(
    message_bytes_max=1024,
    blocks_per_request_max=100,
    sequences_per_step_max=4,
    max_wait_max=2.5,
    page_size_max=50,
)


def facts(error: pytest.ExceptionInfo[CallError]) -> tuple[str, str]:
    metadata = error.value.metadata
    assert getattr(error.value, "field", None) == metadata["field"]
    assert metadata["field"] in str(error.value)
    return metadata["field"], metadata["value"]


@pytest.mark.parametrize("name", ["a", "A-Z.0_9", "-", "x" * 128])
def test_names(name: str) -> None:
    assert validate.pool_name(name) == name
    assert validate.engine_name(name) == name


def test_empty_names_have_their_meaning() -> None:
    assert validate.pool_name("") == ""
    assert validate.engine_name("") == "default"


@pytest.mark.parametrize(
    "name", ["x" * 129, "a b", "a/b", "a\n", "\n", "é", "a@b", "\0", "a\u0660"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidField, match="must be 1 to 128 characters") as caught:
        validate.engine_name(name)
    assert facts(caught)[0] == "engine"
    with pytest.raises(InvalidField):
        validate.pool_name(name)


def test_long_values_are_shown_in_part() -> None:
    with pytest.raises(InvalidField) as caught:
        validate.engine_name("x" * 10_000)
    assert len(facts(caught)[1]) == 80
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("value", "blocks"), [(None, 1), (1, 1), (100, 100)])
def test_num_blocks(value: int | None, blocks: int) -> None:
    assert validate.num_blocks(value, LIMITS) == blocks


def test_no_blocks() -> None:
    with pytest.raises(InvalidField) as caught:
        validate.num_blocks(0, LIMITS)
    assert facts(caught) == ("num_blocks", "0")


@pytest.mark.parametrize(("value", "blocks"), [(None, 1), (0, 0), (1, 1), (100, 100)])
def test_asked_blocks(value: int | None, blocks: int) -> None:
    assert validate.asked_blocks(value, LIMITS) == blocks


@pytest.mark.parametrize("check", [validate.num_blocks, validate.asked_blocks])
def test_too_many_blocks(check: Callable[[int, validate.RequestLimits], int]) -> None:
    with pytest.raises(RequestLimit) as caught:
        check(101, LIMITS)
    assert facts(caught) == ("num_blocks", "101")
    assert caught.value.metadata["limit"] == "blocks_per_request_max"
    assert caught.value.metadata["max"] == "100"


@pytest.mark.parametrize(
    ("seconds", "nanos", "wait"),
    [(0, 0, 0.0), (2, 500_000_000, 2.5), (0, 1, 1e-9), (1, 999_999_999, 1.999999999)],
)
def test_max_wait(seconds: int, nanos: int, wait: float) -> None:
    assert validate.max_wait(Duration(seconds=seconds, nanos=nanos), LIMITS) == wait


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [
        (-1, 0),
        (0, -1),
        (-1, -500_000_000),
        # None of these is a Duration at all: nanos of another sign, or of a second and more.
        (1, -1),
        (-1, 1),
        (0, 1_000_000_000),
        (0, 2_147_483_647),
        (0, -2_147_483_648),
        (3, -2_000_000_000),
    ],
)
def test_bad_max_wait(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidField) as caught:
        validate.max_wait(Duration(seconds=seconds, nanos=nanos), LIMITS)
    assert facts(caught)[0] == "max_wait"


@pytest.mark.parametrize(("seconds", "nanos"), [(2, 500_000_001), (3, 0), (2**63 - 1, 999_999_999)])
def test_max_wait_that_is_too_long(seconds: int, nanos: int) -> None:
    with pytest.raises(RequestLimit) as caught:
        validate.max_wait(Duration(seconds=seconds, nanos=nanos), LIMITS)
    assert caught.value.metadata["limit"] == "max_wait_max"
    assert caught.value.metadata["max"] == "2.5"


@pytest.mark.parametrize(("value", "rows"), [(0, 50), (1, 1), (50, 50)])
def test_page_size(value: int, rows: int) -> None:
    assert validate.page_size(value, LIMITS) == rows


def test_page_size_is_a_hundred_by_default() -> None:
    assert validate.page_size(0, LIMITS._replace(page_size_max=1000)) == 100


def test_page_that_is_too_large() -> None:
    with pytest.raises(RequestLimit) as caught:
        validate.page_size(51, LIMITS)
    assert facts(caught) == ("page_size", "51")


@pytest.mark.parametrize(
    ("token", "row"),
    [("", None), ("7@a", ("a", 7)), ("18446744073709551615@x.y", ("x.y", 2**64 - 1))],
)
def test_page_token(token: str, row: tuple[str, int] | None) -> None:
    assert validate.page_token(token) == row


@pytest.mark.parametrize(
    "token",
    [
        "7",
        "@",
        "7@",
        "@a",
        "-1@a",
        "+1@a",
        " 1@a",
        "1_0@a",
        "\u0663@a",
        "18446744073709551616@a",
        "9" * 5000 + "@a",
        "7@a b",
        "7@a@b",
        "7@" + "x" * 129,
    ],
)
def test_bad_page_token(token: str) -> None:
    with pytest.raises(InvalidField, match="was not given by this server") as caught:
        validate.page_token(token)
    assert facts(caught)[0] == "page_token"


@pytest.mark.parametrize(
    ("free", "allocate", "counts"),
    [
        ([], [], []),
        ([1, 2, 3, 4], [1, 2, 3, 4], []),
        ([], [1, 2], [99, 1]),
        ([2**64 - 1, 0], [0], [100]),
    ],
)
def test_columns(free: list[int], allocate: list[int], counts: list[int]) -> None:
    validate.step_columns(free, allocate, counts, LIMITS)


@pytest.mark.parametrize(
    ("free", "allocate", "counts", "field"),
    [
        ([1, 2, 1], [], [], "step.free_sequence_ids[2]"),
        ([], [5, 5], [], "step.allocate_sequence_ids[1]"),
        ([], [5, 6], [1], "step.allocate_num_blocks"),
        ([], [5], [1, 1], "step.allocate_num_blocks"),
        ([], [], [1], "step.allocate_num_blocks"),
        ([], [5, 6], [1, 0], "step.allocate_num_blocks[1]"),
    ],
)
def test_bad_columns(free: list[int], allocate: list[int], counts: list[int], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        validate.step_columns(free, allocate, counts, LIMITS)
    assert facts(caught)[0] == field


@pytest.mark.parametrize(
    ("free", "allocate", "counts", "limit"),
    [
        ([1, 2, 3, 4, 5], [], [], "sequences_per_step_max"),
        ([], [1, 2, 3, 4, 5], [], "sequences_per_step_max"),
        ([], [1, 2], [100, 1], "blocks_per_request_max"),
        ([], [1, 2], [2**32 - 1, 2**32 - 1], "blocks_per_request_max"),
    ],
)
def test_long_columns(free: list[int], allocate: list[int], counts: list[int], limit: str) -> None:
    with pytest.raises(RequestLimit) as caught:
        validate.step_columns(free, allocate, counts, LIMITS)
    assert caught.value.metadata["limit"] == limit


@pytest.mark.parametrize(("allocate", "counts"), [([], []), ([1, 2], []), ([1, 2], [50, 40])])
def test_acquired_blocks_count_towards_the_blocks_of_a_request(
    allocate: list[int], counts: list[int]
) -> None:
    wanted = sum(counts) if counts else len(allocate)
    validate.step_columns([], allocate, counts, LIMITS, 100 - wanted)
    with pytest.raises(RequestLimit) as caught:
        validate.step_columns([], allocate, counts, LIMITS, 101 - wanted)
    assert caught.value.metadata["field"] == "step.acquire_num_blocks"
    assert caught.value.metadata["value"] == "101"


def test_released_blocks() -> None:
    validate.released_blocks([7, 0, 3], 8, LIMITS)
    validate.released_blocks(list(range(100)), 100, LIMITS)
    with pytest.raises(RequestLimit) as long:
        validate.released_blocks(list(range(101)), 200, LIMITS)
    assert long.value.metadata["limit"] == "blocks_per_request_max"
    for numbers, field in (([7, 8], "[1]"), ([1, 2, 1], "[2]")):
        with pytest.raises(InvalidField) as caught:
            validate.released_blocks(numbers, 8, LIMITS)
        assert facts(caught)[0] == f"step.release_block_numbers{field}"


def test_trims() -> None:
    validate.trims([1, 2], [], [], LIMITS)
    validate.trims([1, 2], [0, 2**32 - 1], [3, 0], LIMITS)
    with pytest.raises(RequestLimit) as long:
        validate.trims([1, 2, 3, 4, 5], [], [], LIMITS)
    assert long.value.metadata["limit"] == "sequences_per_step_max"
    bad: list[tuple[list[int], list[int], list[int], str]] = [
        ([1, 1], [], [], "step.trim_sequence_ids[1]"),
        ([1, 2], [1], [], "step.trim_head_blocks"),
        ([1, 2], [1, 1], [1, 1, 1], "step.trim_tail_blocks"),
        ([], [1], [], "step.trim_head_blocks"),
    ]
    for ids, heads, tails, field in bad:
        with pytest.raises(InvalidField) as caught:
            validate.trims(ids, heads, tails, LIMITS)
        assert facts(caught)[0] == field


def test_single_blocks_count_towards_the_blocks_of_a_request() -> None:
    limits = LIMITS._replace(blocks_per_request_max=3)
    with pytest.raises(RequestLimit) as caught:
        validate.step_columns([], [1, 2, 3, 4], [], limits)
    assert caught.value.metadata["value"] == "4"


@pytest.mark.parametrize(
    ("seconds", "nanos", "milliseconds"),
    [
        (0, 0, 1500),
        (1, 500_000_000, 1500),
        (2, 1_000_000, 2001),
        (20, 0, 20_000),
        (10**9, 0, 20_000),
    ],
)
def test_ttl_is_kept_within_the_terms(seconds: int, nanos: int, milliseconds: int) -> None:
    wish = Duration(seconds=seconds, nanos=nanos)
    assert validate.ttl_ms(wish, LeaseTerms(5.0, 1.5, 20.0)) == milliseconds


def test_ttl_that_nobody_asks_for() -> None:
    assert validate.ttl_ms(None, LeaseTerms(5.0, 1.5, 20.0)) == 5000


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (1, -1), (0, 1_000_000_000)])
def test_bad_ttl(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidField) as caught:
        validate.ttl_ms(Duration(seconds=seconds, nanos=nanos), LeaseTerms(5.0, 1.5, 20.0))
    assert facts(caught)[0] == "ttl"


@pytest.mark.parametrize("value", ["", "x", "x" * 128, "\u00e9" * 128])
def test_request_id(value: str) -> None:
    assert validate.request_id(value) == value


def test_request_id_that_is_too_long() -> None:
    with pytest.raises(InvalidField, match="at most 128 characters") as caught:
        validate.request_id("x" * 129)
    assert facts(caught)[0] == "request_id"
