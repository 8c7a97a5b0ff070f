"""Records as bytes: they come back equal, and damage is always seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvblock_service.core.commands import CreatePool, DeletePool, Free, Stamp, Step, StepPolicy
from kvblock_service.core.pool import Geometry
from kvblock_service.journal.codec import VERSION, decode, encode
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.records import Applied, Record
from tests.unit.journal.kept import commands, records

STEP = Applied(
    "main",
    Stamp(1, 2, "t"),
    Step("e", 3, "r", 4, [5, 2**64 - 1], [6, 7], [8, 9], StepPolicy.IN_ORDER_UNTIL_REFUSED),
)


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


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (
            CreatePool(Geometry("main", 64, 16, 7), 9, True, 5),
            "0102400000000000000010000000000000000700000000000000090000000000000006000000000000000104"
            "006d61696e",
        ),
        (DeletePool("main"), "010304006d61696e"),
    ],
)
def test_changes_of_pools_without_a_request_id_stay_as_they_were(record: Record, kept: str) -> None:
    assert encode(record)[:-4] == bytes.fromhex(kept)
    assert decode(encode(record)) == record


def test_another_version_is_named() -> None:
    from zlib import crc32

    body = bytes([VERSION + 1]) + encode(STEP)[1:-4]
    with pytest.raises(CodecError, match=f"version {VERSION + 1}"):
        decode(body + crc32(body).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "record",
    [
        DeletePool("x" * 70_000),
        Applied("main", Stamp(-1, 0, ""), Free("e", 0, "", 1)),
        Applied("main", Stamp(0, 0, ""), Free("e", 0, "", 2**64)),
        STEP._replace(command=STEP.command._replace(free_ids=[-1])),  # type: ignore[call-arg]
        STEP._replace(pool="\ud800"),
        DeletePool("\ud800"),
    ],
)
def test_what_the_format_cannot_hold_is_an_error(record: Record) -> None:
    with pytest.raises(CodecError, match="does not fit"):
        encode(record)


@given(commands)
def test_columns_come_back_as_lists(command: object) -> None:
    record = decode(encode(Applied("p", Stamp(0, 0, ""), command)))  # type: ignore[arg-type]
    assert isinstance(record, Applied)
    if isinstance(record.command, Step):
        assert all(type(column) is list for column in record.command[4:7])
