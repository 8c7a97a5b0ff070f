"""Pools from a journal: the newest snapshot, then every record behind it.

Rules:
- Records run through the same `apply` as live traffic, with their own stamps.
- What was carried out then is carried out now: limits of the present do not stop commands of the
  past, and a command with a request_id that is on record was a new one, whatever is known.
- Every record that a journal gives was written whole, since its files have checksums of their own:
  what is torn at the end is none any more, see `reader`. So a record that cannot be read ends the
  recovery, the last one too: it is damaged, or of a version that this program does not know.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kvblock_service.core.commands import REJECTIONS, PoolAbsent, PoolPresent
from kvblock_service.core.pool import Bounds
from kvblock_service.core.registry import UNLIMITED, Registry
from kvblock_service.journal import codec, snapshot
from kvblock_service.journal.interface import CodecError, Entry, JournalDamaged, Source
from kvblock_service.journal.records import CommandRecord, Record
from kvblock_service.journal.snapshot import State


class Recovered(NamedTuple):
    """What a journal gave.

    `records` were carried out behind the snapshot at `snapshot_position`; `seconds` is how long it
    took.
    """

    registry: Registry
    server_epoch: int
    position: int
    snapshot_position: int
    records: int
    seconds: float

    @property
    def state(self) -> State:
        """The pools as a snapshot has them."""
        pools = list(self.registry.pools.values())
        return State(self.server_epoch, self.registry.last_epoch, pools, self.registry.changes)


def recover(journal: Source, bounds: Bounds, up_to: int | None = None) -> Recovered:
    """The pools of a journal under these bounds, and how they were read.

    Leases and quarantine still have the deadlines of the past: see `leases.begin_anew`. `up_to`:
    the last position that counts; None: all. Raises JournalDamaged for what cannot be read.
    """
    started = time.perf_counter()
    count = 0
    with _collector_off():
        registry = _begin(journal, Bounds(UNLIMITED, UNLIMITED, bounds.request_ids_max))
        for position, record in decoded(journal.read(journal.snapshot_position, up_to)):
            _replay(registry, position, record)
            count += 1
    registry.set_bounds(bounds)
    return Recovered(
        registry,
        journal.server_epoch,
        journal.position if up_to is None else up_to,
        journal.snapshot_position,
        count,
        time.perf_counter() - started,
    )


def decoded(entries: Iterator[Entry]) -> Iterator[tuple[int, Record]]:
    """Each record with its position; raises JournalDamaged for one that cannot be read."""
    for position, data in entries:
        try:
            record = codec.decode(data)
        except CodecError as error:
            raise JournalDamaged(
                f"record {position} cannot be read: {error}. If a newer version of kvblock has"
                " written it, that one reads it"
            ) from error
        yield position, record


def _begin(journal: Source, bounds: Bounds) -> Registry:
    data = journal.snapshot()
    if data is None:
        return Registry(bounds, journal.server_epoch)
    where = f"the snapshot at position {journal.snapshot_position}"
    try:
        state = snapshot.decode(data, bounds)
    except CodecError as error:
        raise JournalDamaged(f"{where} {error}") from error
    if state.server_epoch != journal.server_epoch:
        raise JournalDamaged(
            f"{where} is of server epoch {state.server_epoch}, not {journal.server_epoch}"
        )
    registry = Registry(bounds, state.last_epoch, state.pools)
    for change in state.changes:
        registry.remember(change)
    return registry


def _replay(registry: Registry, position: int, record: Record) -> None:
    outcome, replayed = (
        registry.replay(*record)
        if isinstance(record, CommandRecord)
        else registry.replay_change(record)
    )
    if isinstance(outcome, PoolAbsent):
        raise JournalDamaged(f"record {position} is of pool {outcome.name}, which is not there")
    if isinstance(outcome, PoolPresent):
        raise JournalDamaged(f"record {position} makes pool {outcome.name}, which is there already")
    if replayed or isinstance(outcome, REJECTIONS):
        raise JournalDamaged(
            f"record {position} does not follow from those before it: {outcome} is the answer to a"
            " command that was carried out"
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
