"""Records as bytes: they come back equal, and damage is always seen."""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvblock_service.core.commands import CreatePool, DeletePool, Free, Stamp, Step, StepPolicy
from kvblock_service.core.pool import Geometry
from kvblock_service.journal.codec import decode, encode
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.layout import (
    Field,
    Layout,
    columns,
    flag,
    numbers,
    optional,
    texts,
)
from kvblock_service.journal.records import CommandRecord, Record
from tests.unit.journal.kept import records, written_commands

STEP = CommandRecord(
    "main",
    Stamp(1, 2, "t"),
    Step("e", 3, "r", 4, [5, 2**64 - 1], [6, 7], [8, 9], StepPolicy.IN_ORDER_UNTIL_REFUSED),
)


def whole(body: bytes) -> bytes:
    return body + crc32(body).to_bytes(4, "little")


@given(records)
def test_what_was_encoded_comes_back(record: Record) -> None:
    assert decode(encode(record)) == record


@given(records, st.data())
def test_a_changed_byte_is_seen(record: Record, data: st.DataObject) -> None:
    encoded = bytearray(encode(record))
    index = data.draw(st.integers(0, len(encoded) - 1))
    encoded[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CodecError):
        decode(bytes(encoded))


@given(records, st.data())
def test_a_cut_or_an_addition_is_seen(record: Record, data: st.DataObject) -> None:
    encoded = encode(record)
    length = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CodecError):
        decode(encoded[:length])
    with pytest.raises(CodecError):
        decode(encoded + data.draw(st.binary(min_size=1, max_size=20)))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_every_byte_of_a_step_counts() -> None:
    encoded = encode(STEP)
    for index in range(len(encoded)):
        for bit in range(8):
            changed = bytearray(encoded)
            changed[index] ^= 1 << bit
            with pytest.raises(CodecError):
                decode(bytes(changed))


def test_the_bytes_of_version_1_stay_readable() -> None:
    kept = bytes.fromhex(
        "01010100000000000000020000000000000003000000000000000400000000000000020400010001000100"
        "0200000002000000020000006d61696e7465720500000000000000ffffffffffffffff0600000000000000"
        "070000000000000008000000000000000900000000000000"
    )
    assert encode(STEP)[:-4] == kept
    assert decode(encode(STEP)) == STEP


def test_a_step_that_does_more_is_of_version_2() -> None:
    assert isinstance(STEP.command, Step)
    more = STEP.command._replace(
        release=[10], acquire=11, trim_ids=[12, 13], trim_heads=[14, 15], trim_tails=[]
    )
    record = STEP._replace(command=more)
    kept = bytes.fromhex(
        "0201010000000000000002000000000000000300000000000000040000000000000002"
        "0b000000000000000400010001000100020000000200000002000000"
        "01000000020000000200000000000000"
        "6d61696e7465720500000000000000ffffffffffffffff0600000000000000"
        "070000000000000008000000000000000900000000000000"
        "0a000000000000000c000000000000000d000000000000000e000000000000000f00000000000000"
    )
    assert encode(record)[:-4] == kept
    assert decode(encode(record)) == record
    for command in (more._replace(release=[]), more._replace(acquire=0)):
        assert decode(encode(STEP._replace(command=command))) == STEP._replace(command=command)


def test_the_bytes_of_a_created_pool() -> None:
    geometry = Geometry("main", 64, 16, 7, 2, 4096, 4, "NHD", "shm")
    record = CreatePool(geometry, 9, True, 5, "r1")
    kept = bytes.fromhex(
        "020c40000000000000001000000000000000070000000000000009000000000000000600000000000000010200"
        "00000000000000100000000000000400000000000000040002000300030" + "06d61696e72314e484473686d"
    )
    assert encode(record)[:-4] == kept


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (
            CreatePool(Geometry("main", 64, 16, 7), 9, True, 5),
            "0102400000000000000010000000000000000700000000000000090000000000000006000000000000000104"
            "006d61696e",
        ),
        (
            CreatePool(Geometry("main", 64, 16, 7), 9, True, 5, "r1"),
            "010c4000000000000000100000000000000007000000000000000900000000000000060000000000000001"
            "040002006d61696e7231",
        ),
        (DeletePool("main"), "010304006d61696e"),
    ],
)
def test_an_old_version_takes_the_defaults_of_what_it_lacks(record: Record, kept: str) -> None:
    assert decode(whole(bytes.fromhex(kept))) == record
    assert decode(encode(record)) == record


def test_another_version_is_named() -> None:
    with pytest.raises(CodecError, match="has version 3; this program reads version 2"):
        decode(whole(b"\3" + encode(STEP)[1:-4]))
    with pytest.raises(CodecError, match="is of kind 7, which this program does not know"):
        decode(whole(b"\1\7" + encode(STEP)[2:-4]))


class Point(NamedTuple):
    x: int
    label: str
    marks: list[int]
    y: int | None
    far: bool
    note: str
    more: list[int]


# As it was at first, and with a field of each kind that came later.
AT_FIRST = (*numbers("x"), *texts("label"), *columns("marks"))
LATER = (
    *AT_FIRST,
    optional("y", since=2),
    flag("far", since=2),
    *texts("note", since=3),
    *columns("more", since=3),
)
points = st.builds(
    Point,
    st.integers(0, 2**64 - 1),
    st.text(max_size=5),
    st.lists(st.integers(0, 2**64 - 1), max_size=3),
    st.none() | st.integers(0, 2**64 - 2),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
)


def layout(fields: Sequence[Field], kinds: Sequence[int] = (9,)) -> Layout:
    shape = "Point(x, label, marks, y, far, note, more)"
    return Layout(kinds, "point", shape, fields, {"Point": Point})


def older(version: int) -> Layout:
    return layout([field for field in LATER if field.since <= version])


@pytest.mark.parametrize("version", [1, 2, 3])
@given(points)
def test_a_field_that_is_added_leaves_what_was_written_readable(version: int, point: Point) -> None:
    body = older(version).record_writer()(point)
    assert body[:2] == bytes([version, 9])
    lacks = ({"y": None, "far": False}, {"note": "", "more": []})
    expected = point
    for came_with, defaults in zip((2, 3), lacks, strict=True):
        if version < came_with:
            expected = expected._replace(**defaults)  # type: ignore[arg-type]
    assert layout(LATER).record_reader(version)(memoryview(body)) == expected
    assert layout(LATER).shower()(point) == point._asdict()


def test_a_later_version_may_have_a_kind_of_its_own() -> None:
    assert [layout(LATER, (2, 12)).code(version) for version in (1, 2, 3)] == [
        (1, 2),
        (1, 12),
        (2, 12),
    ]


@given(points)
def test_lists_of_numbers_come_back(point: Point) -> None:
    fields = [field for field in LATER if field.code != "text"]
    values = (point.x, point.marks, point.y, point.far, point.more)
    one = Layout((3,), "values", "Tuple((x, marks, y, far, more))", fields, {"Tuple": tuple})
    written = one.list_writer()(values)
    assert written[0] == 3
    assert one.list_reader(3)(written) == values


@pytest.mark.parametrize(
    "record",
    [
        DeletePool("x" * 70_000),
        CommandRecord("main", Stamp(-1, 0, ""), Free("e", 0, "", 1)),
        CommandRecord("main", Stamp(0, 0, ""), Free("e", 0, "", 2**64)),
        STEP._replace(command=STEP.command._replace(free_ids=[-1])),  # type: ignore[call-arg]
        STEP._replace(pool="\ud800"),
        DeletePool("\ud800"),
    ],
)
def test_what_the_format_cannot_hold_is_an_error(record: Record) -> None:
    with pytest.raises(CodecError, match="does not fit"):
        encode(record)


@given(written_commands)
def test_columns_come_back_as_lists(command: object) -> None:
    record = decode(encode(CommandRecord("p", Stamp(0, 0, ""), command)))  # type: ignore[arg-type]
    assert isinstance(record, CommandRecord)
    if isinstance(record.command, Step):
        assert all(type(column) is list for column in record.command[4:7])
