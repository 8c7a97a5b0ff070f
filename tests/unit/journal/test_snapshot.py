"""Pools as bytes: what comes back goes on as if nothing had been."""

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.journal.kept import BOUNDS, GEOMETRY, commands, new_pool, stamped, stamps, state_of

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Allocate, Command, Fenced, Reclaim, Stamp
from kvblock_service.core.pool import Pool
from kvblock_service.journal.interface import CodecError
from kvblock_service.journal.records import PoolCreated, PoolDeleted
from kvblock_service.journal.snapshot import MAGIC, VERSION, PoolEntry, State, decode, encode

Stamped = list[tuple[Command, Stamp]]


def again(pool: Pool) -> Pool:
    state = decode(encode(State(1, 2, [PoolEntry(pool, True)])), BOUNDS)
    assert (state.server_epoch, state.last_epoch) == (1, 2)
    (entry,) = state.pools
    assert entry.configured
    return entry.pool


@settings(max_examples=300, deadline=None)
@given(stamped, stamped)
def test_a_copy_answers_as_the_pool_does(before: Stamped, after: Stamped) -> None:
    pool = new_pool()
    for command, stamp in before:
        pool.apply(command, stamp)
    copy = again(pool)
    assert state_of(copy) == state_of(pool)
    for command, stamp in after:
        assert copy.apply(command, stamp) == pool.apply(command, stamp)
        assert copy.repeated == pool.repeated
    assert state_of(copy) == state_of(pool)
    assert audit(copy).violations == []


@settings(deadline=None)
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


def test_what_an_engine_was_answered_before_it_ended_is_still_over() -> None:
    pool = new_pool()
    command = Allocate("a", 0, "r1", 1, 1)
    pool.apply(command, Stamp(0, 0, ""))
    pool.apply(Reclaim("a", 0, "", 0), Stamp(0, 0, ""))
    assert again(pool).apply(command, Stamp(0, 0, "")) == Fenced(0)


def test_changes_of_the_pools_are_kept_and_version_1_has_none() -> None:
    created = PoolCreated(GEOMETRY, 7, False, None, "c")
    changes = (created, PoolDeleted("main", "d"))
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
