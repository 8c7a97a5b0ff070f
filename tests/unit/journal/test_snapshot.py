"""Pools as bytes: what comes back goes on as if nothing had been."""

import struct
from enum import Enum
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Command,
    CreatePool,
    DeletePool,
    Fenced,
    Free,
    Granted,
    Reclaim,
    RefusalReason,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.pool import Geometry, Pool
from kvblock_service.core.registry import PoolEntry
from kvblock_service.journal import snapshot
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.pieces import Writer
from kvblock_service.journal.snapshot import MAGIC, VERSION, State, decode, encode
from tests.examples import examples
from tests.unit.journal.kept import (
    BOUNDS,
    FLOOR,
    GEOMETRY,
    commands,
    new_pool,
    stamped,
    stamps,
    state_of,
)

Stamped = list[tuple[Command, Stamp]]


# What version 3 wrote of the pool in a test below.
VERSION_3 = (
    "4b56425303030000000000000001000000000000000200000000000000010000000000000001000000000000"
    "00040000006d61696e0500000000000000140000000000000010000000000000000000000000000000010000"
    "0000000000000000000000000009000000000000000400000000000000000000000000000000000000000000"
    "00e9030000000000000300000000000000040000000000000000000000000000000000000000000000000000"
    "0000000000020000000000000001000000000000000200000000000000020000000000000000000000000000"
    "0000000000000000000000000000000000040000000000000000000000000000000000000001000000020000"
    "0000000000000000000100000002000000000000000600000000000000060000000000000002000000000000"
    "0000000000000000000200000000000000010000000100000061620100000000000000000000000200000000"
    "000000010000000100000061620400000000000000e903000000000000320000000000000037000000000000"
    "0003000000000000000200000000000000010000000000000002000000000000000200000000000000020000"
    "0001000000030000000000000000000000010000000200000001000000000000005c00000001010000000000"
    "0000000000000000000000e90300000000000001000000000000000100000000010000000000000002000000"
    "02000000610100000000000000020000000000000002000000000000000100000000000000f68402f7010000"
    "00000000000a0000000a00000000000000040000000000000002000000000000001100000000000000000000"
    "0000000000000000000000000000000000000000000300000000000000000000000000000001000000000000"
    "0002000000000000000400000000000000000000000000000000000000000000000000000000000000010000"
    "0000000000010000000000000003000000000000000100000000000000000000000100000000000000030000"
    "0000000000000000000000000000000000000000000000000001000000000000000000000000000000020000"
    "0000000000390000004e00000001060000000000000000000000000000000000000000000000006400000000"
    "00000005000000000000000000000001000200617231ed305850010100000000000000000000000000000000"
    "0000000000000000000000000000000002000000000100020001000000010000000000000062723207000000"
    "0000000003000000000000001bb5b08f02000000000000000700000009000000100000000000000005000000"
    "00000000e9030000000000003200000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000040000000000000001000000000000001000000000000000000000000000000000000000"
    "0000000000000000000000000100000000000000030000000000000000000000000000000200000000000000"
    "00000000000000000000000000000000b08be3ed"
)


def again(pool: Pool) -> Pool:
    state = decode(encode(State(1, 2, [PoolEntry(pool, True)])), BOUNDS)
    assert (state.server_epoch, state.last_epoch) == (1, 2)
    (entry,) = state.pools
    assert entry.configured
    return entry.pool


@pytest.mark.parametrize("quarantine_ms", [None, 0, 1500])
def test_the_quarantine_of_a_pool_that_was_made_at_run_time(quarantine_ms: int | None) -> None:
    entry = PoolEntry(new_pool(), False, quarantine_ms)
    (copy,) = decode(encode(State(1, 2, [entry])), BOUNDS).pools
    assert (copy.configured, copy.quarantine_ms) == (False, quarantine_ms)


@settings(max_examples=examples(300))
@given(stamped, stamped)
def test_a_copy_answers_as_the_pool_does(before: Stamped, after: Stamped) -> None:
    pool = new_pool()
    for command, stamp in before:
        pool.apply(command, stamp)
    copy = again(pool)
    assert state_of(copy) == state_of(pool)
    for command, stamp in after:
        assert copy.apply(command, stamp) == pool.apply(command, stamp)
    assert state_of(copy) == state_of(pool)
    assert audit(copy).violations == []


@given(stamped, st.data())
def test_a_changed_byte_is_seen(done: Stamped, data: st.DataObject) -> None:
    pool = new_pool()
    for command, stamp in done:
        pool.apply(command, stamp)
    encoded = bytearray(encode(State(1, 2, [PoolEntry(pool, False)])))
    index = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CodecError):
        decode(bytes(encoded[:index]), BOUNDS)
    encoded[index] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CodecError):
        decode(bytes(encoded), BOUNDS)


def test_a_smaller_memory_forgets_the_oldest() -> None:
    pool = new_pool()
    made = [Allocate("a", 0, name, 1, 1) for name in ("r1", "r2", "r3")]
    for command in made:
        pool.apply(command, Stamp(0, 0, ""))
    data = encode(State(1, 2, [PoolEntry(pool, True)]))
    copy = decode(data, BOUNDS._replace(request_ids_max=2)).pools[0].pool
    assert [copy.knows(command) for command in made] == [False, True, True]


def test_what_an_engine_was_answered_before_it_ended_is_still_stale() -> None:
    pool = new_pool()
    command = Allocate("a", 0, "r1", 1, 1)
    pool.apply(command, Stamp(0, 0, ""))
    pool.apply(Reclaim("a", 0, "", 0), Stamp(0, 0, ""))
    assert again(pool).apply(command, Stamp(0, 0, "")) == (Fenced(0), True)


def test_changes_of_the_pools_are_kept_and_version_1_has_none() -> None:
    created = CreatePool(GEOMETRY, 7, False, None, "c")
    changes = (created, DeletePool("main", "d"))
    assert decode(encode(State(5, 6, [], changes)), BOUNDS) == State(5, 6, [], changes)
    # The last piece is an empty list of them: its count.
    body = encode(State(5, 6, []))[: -4 - 8]
    body = body[:4] + b"\1" + body[5:]
    old = body + crc32(body).to_bytes(4, "little")
    assert decode(old, BOUNDS) == State(5, 6, [])


def test_another_version_is_named() -> None:
    for version in (0, VERSION + 1):
        body = MAGIC + bytes([version])
        with pytest.raises(CodecError, match=f"has version {version}"):
            decode(body + crc32(body).to_bytes(4, "little"), BOUNDS)


@given(st.lists(st.tuples(commands, stamps), max_size=5))
def test_several_pools_and_none(done: Stamped) -> None:
    assert decode(encode(State(5, 6, [])), BOUNDS) == State(5, 6, [])
    pools = [new_pool(), new_pool()]
    for command, stamp in done:
        pools[1].apply(command, stamp)
    entries = [PoolEntry(pools[0], True), PoolEntry(pools[1], False)]
    found = decode(encode(State(5, 6, entries)), BOUNDS)
    assert [entry.configured for entry in found.pools] == [True, False]
    assert [state_of(entry.pool) for entry in found.pools] == [state_of(pool) for pool in pools]


def of_version_3(pool: Pool) -> bytes:
    """A snapshot as it was before pools had all of their geometry, and engines acquired blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_put_by_number", lambda *_: None)
        data = encode(State(1, 2, [PoolEntry(pool, True)]))
    return without_geometry(data[:4] + b"\3" + data[5:-4])


def test_a_snapshot_of_version_3_has_no_acquired_blocks_and_the_usual_geometry() -> None:
    pool = new_pool()
    pool.apply(Attach("a", 0, "r1", False, 50, 5), Stamp(5, 6, ""))
    step = Step("a", FLOOR + 1, "", 1, [], [1, 2], [2, 1], StepPolicy.ALL_OR_NOTHING)
    pool.apply(step, Stamp(5, 6, ""))
    in_order = StepPolicy.IN_ORDER_UNTIL_REFUSED
    pool.apply(Step("b", 0, "r2", 0, [7], [3], [], in_order), Stamp(5, 6, ""))
    for data in (of_version_3(pool), bytes.fromhex(VERSION_3)):
        (entry,) = decode(data, BOUNDS).pools
        assert state_of(entry.pool) == state_of(pool)
    (entry,) = decode(of_version_3(pool), BOUNDS).pools
    assert entry.pool.geometry == GEOMETRY


def of_version_2(pool: Pool) -> bytes:
    """A snapshot as it was before refusals had numbers: their counts in the order of the enum."""
    data = of_version_3(pool)
    counters = [*range(9), *pool.refused_total.values()]
    now = struct.pack("<Q2Q", 2, 1, 2) + struct.pack("<Q2Q", 2, *pool.refused_total.values())
    body = data[:4] + b"\2" + data[5:-4]
    at = body.index(now)
    before = at - 8 * 9
    assert struct.unpack_from("<Q", body, before - 8) == (9,)
    count = struct.pack("<Q", len(counters))
    counts = struct.pack("<2Q", *pool.refused_total.values())
    body = body[: before - 8] + count + body[before:at] + counts + body[at + len(now) :]
    return body + crc32(body).to_bytes(4, "little")


def without_geometry(body: bytes) -> bytes:
    """The bytes of GEOMETRY as they were up to version 3, and a checksum."""
    now, before = Writer(), Writer()
    now.texts([GEOMETRY.name, GEOMETRY.layout, GEOMETRY.memory])
    now.numbers([*GEOMETRY[1:7], True, 0])
    before.texts([GEOMETRY.name])
    before.numbers([*GEOMETRY[1:4], True, 0])
    assert body.count(now.finish()) == 1
    body = body.replace(now.finish(), before.finish())
    return body + crc32(body).to_bytes(4, "little")


def test_a_pool_with_reserved_blocks_comes_back() -> None:
    geometry = Geometry("main", 8, 16, 0, 2, 4096, 4, "NHD, fp8 é", "dax:/dev/dax0.0")
    pool = Pool(geometry, BOUNDS)
    pool.apply(Allocate("a", 0, "", 1, 3), Stamp(0, 0, ""))
    pool.apply(Free("a", 0, "", 1), Stamp(0, 0, ""))
    pool.apply(Allocate("a", 0, "", 2, 1), Stamp(0, 0, ""))
    (entry,) = decode(encode(State(1, 2, [PoolEntry(pool, True)])), BOUNDS).pools
    assert entry.pool.geometry == geometry
    assert state_of(entry.pool) == state_of(pool)
    assert audit(entry.pool) == audit(pool)
    assert audit(entry.pool).violations == []
    assert entry.pool.apply(Allocate("a", 0, "", 3, 5), Stamp(0, 0, ""))[0] == Granted(
        [3, 2, 5, 6, 7], 5
    )


def test_refusals_of_a_snapshot_of_version_2() -> None:
    pool = new_pool()
    for blocks in (50, 60, 70):
        pool.apply(Allocate("a", 0, "", 1, blocks), Stamp(0, 0, ""))
    pool.apply(Allocate("a", 0, "", 1, 18), Stamp(0, 0, ""))
    pool.apply(Allocate("a", 0, "", 1, 5), Stamp(0, 0, ""))
    assert list(pool.refused_total.values()) == [1, 3]
    (entry,) = decode(of_version_2(pool), BOUNDS).pools
    assert state_of(entry.pool) == state_of(pool)


def test_a_reason_that_came_later_leaves_snapshots_readable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = new_pool()
    pool.apply(Allocate("a", 0, "", 1, 50), Stamp(0, 0, ""))
    known = pool.refused_total
    written = encode(State(1, 2, [PoolEntry(pool, True)]))
    names = {"FIRST": 9, "EXCEEDS_POOL": 2, "POOL_EXHAUSTED": 1}
    later = Enum("later", names)  # type: ignore[misc]
    monkeypatch.setattr("kvblock_service.core.pool_data.RefusalReason", later)
    monkeypatch.setattr(snapshot, "RefusalReason", later)
    (entry,) = decode(written, BOUNDS).pools
    counts = {reason.name: count for reason, count in entry.pool.refused_total.items()}
    assert counts == {"FIRST": 0, **{reason.name: count for reason, count in known.items()}}


def test_what_a_snapshot_has_of_each_thing_is_told_by_its_number() -> None:
    """Whoever changes one of these enums or tuples has to look at what is stored."""
    assert {reason.name: reason.value for reason in RefusalReason} == {
        "POOL_EXHAUSTED": 1,
        "EXCEEDS_POOL": 2,
    }
    assert {policy.name: policy.value for policy in StepPolicy} == {
        "ALL_OR_NOTHING": 1,
        "IN_ORDER_UNTIL_REFUSED": 2,
    }
