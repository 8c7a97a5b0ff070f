"""A restart finds the pools as they were, or says why it cannot."""

from collections.abc import Callable
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
    PoolChange,
    Renew,
    Renewed,
    Stamp,
)
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.core.registry import REQUEST_IDS_MAX, PoolEntry
from kvblock_service.journal import codec, snapshot
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.records import CommandRecord, is_persisted
from kvblock_service.journal.recovery import recover
from kvblock_service.journal.snapshot import State
from tests.examples import examples
from tests.memory_journal import Crash, MemoryJournal
from tests.unit.journal.kept import (
    BOUNDS,
    FLOOR,
    GEOMETRY,
    begin,
    carry_out,
    stamped,
    state_of,
    write,
)

Stamped = list[tuple[Command, Stamp]]
NOW = Stamp(5, 1_700_000_000_000, "")


def only_pool(journal: MemoryJournal, bounds: Bounds = BOUNDS) -> Pool:
    (entry,) = recover(journal.restarted(), bounds).state.pools
    return entry.pool


@settings(max_examples=examples(300))
@given(stamped, stamped, stamped)
def test_a_restart_finds_what_was_there(before: Stamped, then: Stamped, after: Stamped) -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    for command, stamp in before:
        carry_out(journal, pool, command, stamp)
    data = snapshot.encode(State(FLOOR, pool.last_epoch, [PoolEntry(pool, True)]))
    journal.put_snapshot(journal.position, data)
    journal.compact(journal.position)
    for command, stamp in then:
        carry_out(journal, pool, command, stamp)
    found = only_pool(journal)
    assert audit(found).violations == []
    assert state_of(found, deadlines=False) == state_of(pool, deadlines=False)
    for command, stamp in after:
        expected, replayed = pool.apply(command, stamp)
        answer, known = found.apply(command, stamp)
        assert (type(answer), known) == (type(expected), replayed)
        assert state_of(found, deadlines=False) == state_of(pool, deadlines=False)


@given(stamped, st.integers(0, 40), st.booleans())
def test_a_crash_loses_nothing_that_was_answered(done: Stamped, writes: int, tear: bool) -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    answered = state_of(pool, deadlines=False)
    journal.crash_after, journal.tear = writes, tear
    crashed = False
    try:
        for command, stamp in done:
            carry_out(journal, pool, command, stamp)
            answered = state_of(pool, deadlines=False)
    except Crash:
        crashed = True
    found = state_of(only_pool(journal), deadlines=False)
    whole = state_of(pool, deadlines=False)
    assert found == (answered if tear or not crashed else whole)


@given(stamped)
def test_limits_of_the_present_do_not_stop_the_past(done: Stamped) -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    for command, stamp in done:
        carry_out(journal, pool, command, stamp)
    found = only_pool(journal, Bounds(1, 1, BOUNDS.request_ids_max))
    assert state_of(found, deadlines=False) == state_of(pool, deadlines=False)
    assert found.bounds == Bounds(1, 1, BOUNDS.request_ids_max)


def test_a_forgotten_request_id_that_came_again_was_a_new_request() -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    for name in ("r", "r1", "r2", "r3", "r4", "r"):
        carry_out(journal, pool, Allocate("a", 0, name, 1, 1), NOW)
    assert pool.blocks.held == 6
    assert only_pool(journal, BOUNDS._replace(request_ids_max=99)).blocks.held == 6


def test_a_retry_after_a_restart_answers_the_same() -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    command = Allocate("a", 0, "r", 1, 3)
    outcome = carry_out(journal, pool, command, NOW)
    found = only_pool(journal)
    assert outcome == Granted([0, 1, 2], 3)
    assert found.apply(command, NOW) == (outcome, True)


def test_what_is_kept() -> None:
    assert is_persisted(Allocate("a", 0, "", 1, 1), Granted([1], 1), replayed=False)
    assert not is_persisted(Allocate("a", 0, "", 1, 1), Granted([1], 1), replayed=True)
    assert not is_persisted(Allocate("a", 1, "", 1, 1), Fenced(0), replayed=False)
    assert not is_persisted(Renew("a", 1), Renewed(5), replayed=False)


def test_pools_come_and_go_and_epochs_never_come_back() -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    for _ in range(3):
        carry_out(journal, pool, Attach("a", 0, "", True, 10, 0), NOW)
    other = GEOMETRY._replace(name="other")
    write(journal, [codec.encode(CreatePool(other, 5, False)), codec.encode(DeletePool("main"))])
    recovered = recover(journal.restarted(), BOUNDS)
    assert [entry.pool.geometry for entry in recovered.state.pools] == [other]
    assert [entry.configured for entry in recovered.state.pools] == [False]
    assert recovered.state.pools[0].pool.last_epoch == 5
    assert recovered.state.last_epoch == FLOOR + 3
    journal.put_snapshot(journal.position, snapshot.encode(recovered.state))
    from_snapshot = recover(journal.restarted(), BOUNDS)
    assert from_snapshot.records == 0
    assert from_snapshot.state.last_epoch == FLOOR + 3


def test_changes_of_the_pools_are_remembered_as_many_as_a_server_does() -> None:
    journal = MemoryJournal(FLOOR)
    first = CreatePool(GEOMETRY._replace(name="side"), 5, False, None, "first")
    made: list[PoolChange] = [first]
    for number in range(REQUEST_IDS_MAX // 2):
        made += [DeletePool("side", f"d{number}"), first._replace(request_id=f"c{number}")]
    write(journal, [codec.encode(change) for change in made[:9]])
    data = snapshot.encode(recover(journal.restarted(), BOUNDS).state)
    journal.put_snapshot(journal.position, data)
    journal.compact(journal.position)
    write(journal, [codec.encode(change) for change in [*made[9:], DeletePool("side")]])
    found = recover(journal.restarted(), BOUNDS).state
    assert found.changes == tuple(made[1:])
    assert found.pools == []


def test_a_torn_tail_is_no_record() -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    carry_out(journal, pool, Allocate("a", 0, "", 1, 1), NOW)
    journal.crash_after, journal.tear = 0, True
    with pytest.raises(Crash):
        carry_out(journal, pool, Allocate("a", 0, "", 2, 1), NOW)
    found = journal.restarted()
    recovered = recover(found, BOUNDS)
    assert recovered.position == found.position == 2
    assert recovered.records == 2
    assert recovered.state.pools[0].pool.blocks.held == 1


def test_an_end_that_is_gone_stops_the_start() -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    carry_out(journal, pool, Allocate("a", 0, "", 1, 1), NOW)
    journal.lose_end(1)
    with pytest.raises(JournalDamaged, match="ends with record 1, but record 2 was acknowledged"):
        recover(journal.restarted(), BOUNDS)


def test_damage_in_the_middle_stops_the_start() -> None:
    journal = MemoryJournal(FLOOR)
    write(journal, [b"not a record at all", codec.encode(DeletePool("x"))])
    with pytest.raises(JournalDamaged, match="record 1 cannot be read"):
        recover(journal, BOUNDS)


def of_version_2(record: bytes) -> bytes:
    return b"\2" + record[1:]


def of_kind_200(record: bytes) -> bytes:
    return record[:1] + bytes([200]) + record[2:]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (of_version_2, "has version 2; this program reads version 1"),
        (of_kind_200, "is of kind 200, which this program does not know"),
    ],
)
def test_a_last_record_that_is_whole_and_unknown_stops_the_start(
    change: Callable[[bytes], bytes], problem: str
) -> None:
    journal = MemoryJournal(FLOOR)
    pool = begin(journal)
    carry_out(journal, pool, Allocate("a", 0, "", 1, 1), NOW)
    body = change(codec.encode(CommandRecord("main", NOW, Free("a", 0, "", 1)))[:-4])
    write(journal, [body + crc32(body).to_bytes(4, "little")])
    with pytest.raises(
        JournalDamaged, match=f"record 3 cannot be read: .*{problem}.*newer version"
    ):
        recover(journal.restarted(), BOUNDS)


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        (DeletePool("x"), "record 2 is of pool x, which is not there"),
        (CreatePool(GEOMETRY, 1, True), "record 2 makes pool main, which is there already"),
        (
            CommandRecord("main", NOW, Allocate("a", 9, "", 1, 1)),
            "record 2 does not follow from those before it",
        ),
    ],
)
def test_a_record_that_cannot_have_been_written(record: CommandRecord, problem: str) -> None:
    journal = MemoryJournal(FLOOR)
    begin(journal)
    write(journal, [codec.encode(record), codec.encode(DeletePool("main"))])
    with pytest.raises(JournalDamaged, match=problem):
        recover(journal, BOUNDS)


def test_a_damaged_snapshot_and_one_of_another_epoch() -> None:
    journal = MemoryJournal(FLOOR)
    begin(journal)
    journal.put_snapshot(1, b"KVBS nonsense")
    with pytest.raises(JournalDamaged, match="the snapshot at position 1 its checksum is wrong"):
        recover(journal, BOUNDS)
    journal.put_snapshot(1, snapshot.encode(State(FLOOR + 1, 0, [])))
    with pytest.raises(JournalDamaged, match="is of server epoch 1001, not 1000"):
        recover(journal, BOUNDS)
