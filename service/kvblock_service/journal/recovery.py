"""Pools from a journal: the newest snapshot, then every record behind it.

Rules:
- Records run through the same `Pool.apply` as live traffic, with their own stamps.
- What was carried out then is carried out now: limits of the present do not stop commands of the
  past, and a command with a request_id that is on record was a new one, whatever is remembered.
- Every record that a journal gives was written whole, since its files have checksums of their own:
  what is torn at the end is none any more, see `reader`. So a record that cannot be read ends the
  recovery, the last one too: it is damaged, or of a version that this program does not know.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kvblock_service.core.commands import REJECTIONS
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.journal import codec, snapshot
from kvblock_service.journal.interface import CodecError, Entry, JournalDamaged, Source
from kvblock_service.journal.records import CommandRecord, PoolChange, PoolCreated, Record, remember
from kvblock_service.journal.snapshot import PoolEntry, State

_UNLIMITED = 2**63


class Recovered(NamedTuple):
    """What a journal gave.

    `records` were carried out behind the snapshot at `snapshot_position`; `seconds` is how long it
    took.
    """

    state: State
    position: int
    snapshot_position: int
    records: int
    seconds: float


def recover(journal: Source, bounds: Bounds, up_to: int | None = None) -> Recovered:
    """The pools of a journal under these bounds, and what there is to tell about it.

    Leases and quarantine still have the deadlines of the past: see `leases.begin_anew`. `up_to`:
    the last position that counts; None: all.

    Raises:
        JournalDamaged: something in it cannot be read.

    """
    started = time.perf_counter()
    with _collector_off():
        replayed = _Replay(_begin(journal, bounds), bounds)
        for position, record in decoded(journal.read(journal.snapshot_position, up_to)):
            replayed.take(position, record)
    for entry_of_pool in replayed.pools.values():
        entry_of_pool.pool.bounds = bounds
    state = State(
        journal.server_epoch,
        replayed.last_epoch,
        list(replayed.pools.values()),
        tuple(replayed.changes.values()),
    )
    return Recovered(
        state,
        journal.position if up_to is None else up_to,
        journal.snapshot_position,
        replayed.count,
        time.perf_counter() - started,
    )


def decoded(entries: Iterator[Entry]) -> Iterator[tuple[int, Record]]:
    """Each record with its position.

    Raises:
        JournalDamaged: one cannot be read.

    """
    for position, data in entries:
        try:
            record = codec.decode(data)
        except CodecError as error:
            raise JournalDamaged(
                f"record {position} cannot be read: {error}. If a newer version of kvblock has"
                " written it, that one reads it"
            ) from error
        yield position, record


def _begin(journal: Source, bounds: Bounds) -> State:
    data = journal.snapshot()
    if data is None:
        return State(journal.server_epoch, journal.server_epoch, [])
    where = f"the snapshot at position {journal.snapshot_position}"
    try:
        state = snapshot.decode(data, bounds)
    except CodecError as error:
        raise JournalDamaged(f"{where} {error}") from error
    if state.server_epoch != journal.server_epoch:
        raise JournalDamaged(
            f"{where} is of server epoch {state.server_epoch}, not {journal.server_epoch}"
        )
    return state


class _Replay:
    """The pools so far."""

    def __init__(self, state: State, bounds: Bounds) -> None:
        self.bounds = Bounds(_UNLIMITED, _UNLIMITED, bounds.request_ids_max)
        self.pools = {entry.pool.geometry.name: entry for entry in state.pools}
        self.changes: dict[str, PoolChange] = {one.request_id: one for one in state.changes}
        self.deleted_epoch = state.last_epoch
        self.count = 0
        for entry in self.pools.values():
            entry.pool.bounds = self.bounds

    @property
    def last_epoch(self) -> int:
        return max([self.deleted_epoch, *(entry.pool.last_epoch for entry in self.pools.values())])

    def take(self, position: int, record: Record) -> None:
        self.count += 1
        if isinstance(record, PoolCreated):
            name = record.geometry.name
            if name in self.pools:
                raise JournalDamaged(f"record {position} makes pool {name}, which is there already")
            pool = Pool(record.geometry, self.bounds, record.epoch_floor)
            self.pools[name] = PoolEntry(pool, record.configured, record.quarantine_ms)
            remember(self.changes, record)
            return
        entry = self.pools.get(record.pool)
        if entry is None:
            raise JournalDamaged(f"record {position} is of pool {record.pool}, which is not there")
        if isinstance(record, CommandRecord):
            _apply(entry.pool, position, record)
        else:
            self.deleted_epoch = max(self.deleted_epoch, entry.pool.last_epoch)
            del self.pools[record.pool]
            remember(self.changes, record)


def _apply(pool: Pool, position: int, record: CommandRecord) -> None:
    command = record.command
    if command.request_id:
        pool.memory.forget(command)
    outcome = pool.apply(command, record.stamp)
    if pool.repeated or isinstance(outcome, REJECTIONS):
        raise JournalDamaged(
            f"record {position} does not follow from those before it: pool {record.pool} answers"
            f" {outcome} to a command that was carried out"
        )


@contextmanager
def _collector_off() -> Iterator[None]:
    """Nothing that is made here is garbage, so looking for some is a waste of time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
