"""The audit finds every kind of damage; each test plants one in a pool that was clean."""

from array import array

import pytest

from kvblock_service.core.acquired import Acquisition
from kvblock_service.core.audit import VIOLATIONS_MAX, Report, audit
from kvblock_service.core.blocks import Batch
from kvblock_service.core.engine import Engine, blocks_of
from kvblock_service.core.pool import Pool
from tests.unit.core.pools import Desk


@pytest.fixture
def pool() -> Pool:
    """Blocks 0 1 in a/1, 2 in a/2, 3 4 in b/1, freed 6 then 5, never used 7."""
    desk = Desk(8)
    desk.allocate(1, 2)
    desk.allocate(2)
    desk.allocate(1, 2, engine="b")
    desk.allocate(9, engine="c")
    desk.allocate(10, engine="c")
    desk.free(9, engine="c")
    desk.free(10, engine="c")
    assert desk.pool.blocks.free_list.freed.tolist() == [5, 6]
    for engine in desk.pool.engines.values():
        # Damage is planted by hand, also in tables of one block: those are plain numbers otherwise.
        for one, held_as in engine.tables.items():
            engine.tables[one] = array("I", blocks_of(held_as))
    return desk.pool


def table(pool: Pool, engine: str, sequence_id: int) -> "array[int]":
    found = pool.engines[engine].tables[sequence_id]
    assert isinstance(found, array)
    return found


def violations(pool: Pool) -> str:
    found = audit(pool).violations
    assert found, "the audit found nothing"
    return "\n".join(found)


def test_clean_pool_is_counted(pool: Pool) -> None:
    assert audit(pool) == Report(3, 5, 0, 3, [])


def test_block_in_two_tables_of_one_engine(pool: Pool) -> None:
    table(pool, "a", 2).append(0)
    assert "block 0 is in the table of sequence 2 of engine a and held by the" in violations(pool)


def test_block_in_tables_of_two_engines(pool: Pool) -> None:
    table(pool, "b", 1)[0] = 2
    assert "block 2 is in the table of sequence 1 of engine b and held by the" in violations(pool)


def test_block_twice_in_one_table(pool: Pool) -> None:
    table(pool, "a", 1)[0] = 1
    assert "block 1 is in the table of sequence 1 of engine a and held by the" in violations(pool)


def test_leaked_block(pool: Pool) -> None:
    table(pool, "a", 1).remove(0)
    assert "block 0 is neither free nor held" in violations(pool)


def test_leaked_table(pool: Pool) -> None:
    engine = pool.engines["a"]
    engine.held -= len(blocks_of(engine.tables.pop(1)))
    pool.blocks.freed_total += 2
    found = violations(pool)
    assert "block 0 is neither free nor held" in found
    assert "block 1 is neither free nor held" in found


def test_leaked_free_block(pool: Pool) -> None:
    pool.blocks.free_list.freed.pop()
    assert "block 6 is neither free nor held" in violations(pool)


def test_block_freed_twice(pool: Pool) -> None:
    pool.blocks.free_list.freed.append(5)
    assert "block 5 is on the free stack and on the free stack" in violations(pool)


def test_block_free_and_held(pool: Pool) -> None:
    pool.blocks.free_list.freed.append(3)
    assert "block 3 is on the free stack and held by the" in violations(pool)


def test_wrong_grant(pool: Pool) -> None:
    pool.blocks.grants[2] = pool.blocks.grants[3]
    assert "block 2 is in the table of sequence 2 of engine a, but was granted" in violations(pool)


def test_grant_to_nobody(pool: Pool) -> None:
    pool.blocks.grants[0] = pool.blocks.grant_of(0)._replace(engine="nobody")
    assert "block 0 is in the table of sequence 1 of engine a, but was granted" in violations(pool)


def test_grants_too_short(pool: Pool) -> None:
    del pool.blocks.grants[1:]
    assert "there are grants of 1 blocks, but 7 were ever handed out" in violations(pool)


def test_grants_too_long(pool: Pool) -> None:
    pool.blocks.grants.append(pool.blocks.grants[0])
    assert "there are grants of 8 blocks, but 7 were ever handed out" in violations(pool)


def test_never_used_block_in_a_table(pool: Pool) -> None:
    table(pool, "a", 1)[0] = 7
    assert "block 7 is in the table of sequence 1 of engine a, but was never" in violations(pool)


def test_never_used_block_on_the_free_stack(pool: Pool) -> None:
    pool.blocks.free_list.freed.append(7)
    assert "block 7 is on the free stack, but was never handed out" in violations(pool)


def test_more_blocks_handed_out_than_there_are(pool: Pool) -> None:
    desk = Desk(2)
    desk.allocate(1, 2)
    desk.pool.blocks.free_list.total = 3
    desk.pool.blocks.free_list.take(1)
    assert "3 blocks were handed out, but the pool has 2" in violations(desk.pool)


def test_empty_table(pool: Pool) -> None:
    pool.engines["a"].tables[77] = array("I")
    assert "the table of sequence 77 of engine a is empty" in violations(pool)


def test_engine_without_a_block(pool: Pool) -> None:
    pool.engines["z"] = Engine("z")
    assert "engine z has neither a block nor a lease" in violations(pool)


def test_epoch_that_was_never_handed_out(pool: Pool) -> None:
    pool.engines["a"].epoch = 5
    assert "engine a has epoch 5, which was never handed out" in violations(pool)


def batch(*blocks: int) -> Batch:
    return Batch(array("I", blocks), 0, 0, "gone", 1)


def test_block_in_quarantine_and_held(pool: Pool) -> None:
    pool.blocks.quarantine[1] = batch(0)
    pool.blocks.quarantined = 1
    assert "block 0 is in quarantine batch 1 and held by the" in violations(pool)


def test_block_in_quarantine_and_free(pool: Pool) -> None:
    pool.blocks.quarantine[1] = batch(5)
    pool.blocks.quarantined = 1
    assert "block 5 is on the free stack and in quarantine" in violations(pool)


def test_never_used_block_in_quarantine(pool: Pool) -> None:
    pool.blocks.quarantine[1] = batch(7)
    pool.blocks.quarantined = 1
    assert "block 7 is in quarantine batch 1, but was never handed out" in violations(pool)


def test_quarantine_counts_wrong(pool: Pool) -> None:
    pool.blocks.quarantined = 2
    assert "2 blocks are counted in quarantine, but its batches hold 0" in violations(pool)


@pytest.fixture
def acquired() -> Pool:
    """Engine a has acquired blocks 0 to 3, and block 4 is in its table of sequence 1."""
    desk = Desk(8)
    assert desk.step(acquire=4).acquired == [0, 1, 2, 3]
    desk.allocate(1)
    return desk.pool


def test_acquired_block_in_a_table(acquired: Pool) -> None:
    acquired.engines["a"].tables[2] = 1
    assert "block 1 is acquired by engine a and held by the 1. engine" in violations(acquired)


def test_acquired_block_of_another_engine(acquired: Pool) -> None:
    acquisition = acquired.blocks.grants[2]
    assert isinstance(acquisition, Acquisition)
    acquisition.grant = acquisition.grant._replace(engine="b")
    assert "block 2 is acquired by engine a, but was granted to another" in violations(acquired)


def test_acquired_block_that_no_grant_tells_of(acquired: Pool) -> None:
    acquired.blocks.grants[2] = acquired.blocks.grant_of(2)
    found = violations(acquired)
    assert "engine a counts 4 acquired blocks, but has 3" in found
    assert "block 2 is neither free nor held nor in quarantine" in found


def test_acquired_block_that_is_free(acquired: Pool) -> None:
    acquired.blocks.free_list.freed.append(3)
    assert "block 3 is on the free stack and held by the 1. engine" in violations(acquired)


def test_trimmed_sequence_without_a_table(acquired: Pool) -> None:
    acquired.engines["a"].first_indexes[9] = 2
    assert "sequence 9 of engine a was trimmed, but has no table" in violations(acquired)


def test_engine_counts_wrong(pool: Pool) -> None:
    pool.engines["a"].held += 1
    found = violations(pool)
    assert "engine a counts 4 blocks, but has 3" in found
    assert "5 blocks are counted as held, but the engines count 6" in found


@pytest.mark.parametrize("counter", ["allocated_total", "freed_total"])
def test_pool_counts_wrong(pool: Pool, counter: str) -> None:
    setattr(pool.blocks, counter, getattr(pool.blocks, counter) + 1)
    assert "blocks are counted as held, but the engines count 5" in violations(pool)


def test_first_hundred_sentences_are_enough() -> None:
    desk = Desk(500)
    desk.allocate(1, 500)
    desk.pool.blocks.free_list.freed.extend(range(500))
    assert len(audit(desk.pool).violations) == VIOLATIONS_MAX


@pytest.fixture
def reserving() -> Pool:
    """Blocks 0 1 reserved, 2 3 in a/1, freed 4, never used 5."""
    desk = Desk(6, reserved=2)
    desk.allocate(1, 2)
    desk.allocate(9)
    desk.free(9)
    return desk.pool


def test_reserved_blocks_are_counted(reserving: Pool) -> None:
    assert audit(reserving) == Report(2, 2, 0, 1, [], reserved_blocks=2)


def test_reserved_block_in_a_table(reserving: Pool) -> None:
    table(reserving, "a", 1)[0] = 1
    found = violations(reserving)
    assert "block 1 is in the table of sequence 1 of engine a and reserved" in found
    assert "block 1 is in the table of sequence 1 of engine a, but was granted to another" in found


def test_reserved_block_on_the_free_stack(reserving: Pool) -> None:
    reserving.blocks.free_list.freed.append(0)
    assert "block 0 is on the free stack and reserved" in violations(reserving)


def test_reserved_block_in_quarantine(reserving: Pool) -> None:
    reserving.blocks.quarantine[1] = Batch(array("I", [1]), 9, 9, "b", 0)
    assert "block 1 is in quarantine batch 1 and reserved" in violations(reserving)


def test_reserved_block_that_was_granted(reserving: Pool) -> None:
    reserving.blocks.grants[1] = reserving.blocks.grants[2]
    assert "block 1 is reserved, but was granted to engine a" in violations(reserving)


def test_reserved_blocks_among_the_never_used_ones(reserving: Pool) -> None:
    reserving.blocks.free_list.fresh = 1
    assert "the never-used blocks begin with 1, but 2 are reserved" in violations(reserving)
