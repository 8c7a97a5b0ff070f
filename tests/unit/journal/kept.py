"""Records, pools and arbitrary commands for the tests of the journal."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from hypothesis import strategies as st

from kvblock_service.core.acquired import grant_of
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Command,
    CreatePool,
    DeletePool,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Outcome,
    Reclaim,
    Renew,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.journal import codec, end_file, identity
from kvblock_service.journal.interface import Entry, Journal, Source
from kvblock_service.journal.records import CommandRecord, is_persisted

BOUNDS = Bounds(engines_max=3, sequences_per_engine_max=6, request_ids_max=4)
GEOMETRY = Geometry("main", 20, 16, 0)
FLOOR = 1000

engines = st.sampled_from(["a", "b", "é", "d"])
epochs = st.just(0) | st.integers(FLOOR, FLOOR + 4)
request_ids = st.just("") | st.sampled_from(["r1", "r2", "r3"])
sequences = st.sampled_from([0, 1, 2, 3, 2**64 - 1])
columns = st.lists(sequences, unique=True, max_size=4)
amounts = st.integers(1, 6)
periods = st.sampled_from([0, 5, 50])


@st.composite
def steps(draw: st.DrawFn) -> Step:
    ids = draw(columns)
    trimmed = draw(st.just([]) | columns)
    amounts_of_trims = st.lists(st.integers(0, 3), min_size=len(trimmed), max_size=len(trimmed))
    counts = draw(st.lists(amounts, min_size=len(ids), max_size=len(ids)) | st.just([]))
    return Step(
        draw(engines),
        draw(epochs),
        draw(request_ids),
        draw(st.integers(0, 3)),
        draw(columns),
        ids,
        counts,
        draw(st.sampled_from(StepPolicy)),
        draw(st.just([]) | st.lists(st.integers(0, 20), unique=True, max_size=3)),
        draw(st.sampled_from([0, 0, 1, 4])),
        trimmed,
        draw(amounts_of_trims | st.just([])),
        draw(amounts_of_trims | st.just([])),
    )


commands: st.SearchStrategy[Command] = st.one_of(
    steps(),
    st.builds(Allocate, engines, epochs, request_ids, sequences, amounts),
    st.builds(Free, engines, epochs, request_ids, sequences),
    st.builds(Attach, engines, epochs, request_ids, st.booleans(), st.integers(0, 99), periods),
    st.builds(Renew, engines, epochs),
    st.builds(Detach, engines, epochs, request_ids),
    st.builds(Expire, engines, epochs, periods, request_ids),
    st.builds(Reclaim, engines, epochs, request_ids, periods),
    st.integers(1, 3).map(EndQuarantine),
)
# A renewal is not written.
written_commands = commands.filter(lambda command: not isinstance(command, Renew))
stamps = st.builds(
    Stamp, st.integers(0, 100), st.integers(0, 2**63), st.sampled_from(["", "0af7651916cd43dd"])
)
geometries = st.builds(
    Geometry,
    st.text("ab.", max_size=5),
    st.integers(1, 2**31),
    st.integers(1, 99),
    st.just(7),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**40),
    st.integers(1, 2**16),
    st.text(max_size=256),
    st.sampled_from(["none", "shm"]) | st.text(max_size=64),
)
records = st.one_of(
    st.builds(CommandRecord, st.text(max_size=5), stamps, written_commands),
    st.builds(
        CreatePool,
        geometries,
        st.integers(0, 2**63),
        st.booleans(),
        st.none() | st.integers(0, 86_400_000),
        request_ids,
    ),
    st.builds(DeletePool, st.text(max_size=5), request_ids),
)
stamped = st.lists(st.tuples(commands, stamps), max_size=40)


def new_pool(bounds: Bounds = BOUNDS) -> Pool:
    return Pool(GEOMETRY, bounds, FLOOR)


def write(journal: Journal, records: Sequence[bytes]) -> None:
    """Append records behind the last one."""
    journal.append(journal.position, records)


def replay(journal: Source) -> Iterator[Entry]:
    """The records behind the newest snapshot."""
    return journal.read(journal.snapshot_position)


def begin(journal: Journal) -> Pool:
    """A new pool, and its record in the journal."""
    write(journal, [codec.encode(CreatePool(GEOMETRY, FLOOR, True))])
    return new_pool()


def carry_out(journal: Journal, pool: Pool, command: Command, stamp: Stamp) -> Outcome:
    """Apply a command as a server does: answer after it is kept."""
    outcome, replayed = pool.apply(command, stamp)
    if is_persisted(command, outcome, replayed):
        write(journal, [codec.encode(CommandRecord(GEOMETRY.name, stamp, command))])
    return outcome


def unacknowledge(directory: Path) -> None:
    """Have the last append of a journal not be acknowledged: its process died before."""
    path = directory / end_file.NAME
    data = path.read_bytes()
    slots = [data[: end_file.SLOT_BYTES], data[end_file.SLOT_BYTES :]]
    positions = [int.from_bytes(slot[13:21], "little") for slot in slots]
    slots[positions.index(max(positions))] = bytes(end_file.SLOT_BYTES)
    path.write_bytes(b"".join(slots))


def change_identity(state_dir: Path, **fields: object) -> None:
    """Write an identity with other fields as a server would."""
    content = json.loads((state_dir / identity.NAME).read_text()) | fields
    del content["checksum"]
    content["former"] = tuple(content["former"])
    identity.write_identity(state_dir, identity.StateIdentity(**content))


def state_of(pool: Pool, *, deadlines: bool = True) -> object:
    """All of a pool that can make a difference later, orders included."""
    return (
        pool.geometry,
        (pool.blocks.free_list.fresh, pool.blocks.free_list.freed.tolist()),
        list(map(grant_of, pool.blocks.grants)),
        [
            (
                engine.name,
                engine.epoch,
                engine.ttl_ms if engine.epoch else 0,
                engine.deadline_ms if deadlines and engine.epoch else 0,
                engine.held,
                engine.last_step,
                [(one, list(blocks_of(table))) for one, table in engine.tables.items()],
                engine.acquired.blocks(pool.blocks.grants).tolist(),
                list(engine.first_indexes.items()),
            )
            for engine in pool.engines.values()
        ],
        [
            (number, batch.blocks.tolist(), batch.due_ms if deadlines else 0, *batch[2:])
            for number, batch in pool.blocks.quarantine.items()
        ],
        (pool.blocks.quarantined, pool.blocks.last_batch, pool.last_epoch, pool.revision),
        (
            pool.blocks.allocated_total,
            pool.blocks.freed_total,
            pool.blocks.reclaimed_total,
            pool.expired_total,
        ),
        dict(pool.refused_total),
        list(pool.cache.results.items()),
        pool.cache.numbers,
    )
