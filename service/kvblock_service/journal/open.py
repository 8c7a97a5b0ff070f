"""From a state directory and a configuration to pools that can be served.

Rules:
- The configuration and the journal have to agree, or the server does not start: blocks that
  engines hold are not thrown away because of an edited file.
- A pool that was made at run time comes back by itself.
- What an operator should know is one log event with its fields.
- What an operator changes is changed while no server runs.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from kvblock_service.core import leases
from kvblock_service.core.commands import NO_MEMORY, CreatePool, DeletePool, Geometry, PoolChange
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.core.registry import PoolEntry, Registry
from kvblock_service.journal import codec
from kvblock_service.journal.file_journal import FileJournal
from kvblock_service.journal.former import remove_former
from kvblock_service.journal.interface import Journal, JournalDamaged, JournalError, LogEvent
from kvblock_service.journal.recovery import Recovered, recover
from kvblock_service.journal.state_dir import (
    Opened,
    StateDir,
    host_died,
    journal_directory,
    naming_the_remedy,
    present_identity,
)

FORMER_SECONDS = 7 * 86_400.0
"""How long a journal that does not count any more is there under another name."""


class GeometryChanged(Exception):
    """The configuration's pools are not the journal's; the text says both, and what to do."""


class OpenedJournal(NamedTuple):
    """A journal and its pools. Close the journal, then release `state_dir`."""

    journal: FileJournal
    state_dir: StateDir
    registry: Registry
    events: list[LogEvent]

    @property
    def pools(self) -> list[PoolEntry]:
        """The pools, in the order in which they were made."""
        return list(self.registry.pools.values())


def open_journal(
    path: Path,
    configured: Sequence[Geometry],
    bounds: Bounds,
    *,
    durability: str = "process",
    owner: str = "",
    former_seconds: float = FORMER_SECONDS,
    now_ms: int | None = None,
    prepare: Callable[[Registry, int], None] = lambda *_: None,
) -> OpenedJournal:
    """Take a state directory, recover its pools, and make those that are new.

    `former_seconds`: how long a journal that does not count any more is there under another name.
    `now_ms` is the monotonic clock from which leases get their full TTL; None: now. `prepare` gets
    the pools and the server epoch, before anything is written: what it raises ends the start.

    Raises:
        StateDirInUse: another server has it.
        JournalDamaged: it cannot be read.
        JournalError: it cannot be written to.
        GeometryChanged: it has other pools than the configuration.

    """
    with ExitStack() as undo:
        state_dir = StateDir(path, owner)
        undo.callback(state_dir.release)
        with naming_the_remedy(path):
            found = state_dir.open(durability)
            journal = _journal_of(path, found)
            undo.callback(journal.close)
            recovered = recover(journal, bounds)
            _refuse_lost_records(found, journal)
        events = _events(path, found, journal, recovered)
        records = _reconciled(path, configured, recovered.registry, events)
        prepare(recovered.registry, found.identity.server_epoch)
        # The identity tells which boot it is; what the boot before has left has to be cut by then.
        journal.cut_tails()
        aside = state_dir.put_in_force(found)
        events += _events_of_former(aside, former_seconds) + events_of_removal(path, former_seconds)
        _begin(journal, recovered.registry, records, now_ms)
        undo.pop_all()
    return OpenedJournal(journal, state_dir, recovered.registry, events)


def take_up(
    journal: Journal, configured: Sequence[Geometry], bounds: Bounds, now_ms: int | None = None
) -> tuple[Registry, list[LogEvent]]:
    """As `open_journal`, for a journal that is not in a state directory."""
    registry = recover(journal, bounds).registry
    events: list[LogEvent] = []
    records = _reconciled(Path(), configured, registry, events)
    _begin(journal, registry, records, now_ms)
    return registry, events


def discard_pool(path: Path, name: str) -> None:
    """Drop a pool and all that is held in it from the journal of a server that is not running.

    Raises:
        StateDirInUse: it is running.
        JournalDamaged: the journal cannot be read.
        JournalError: the pool is not there, or the journal cannot be written to.

    """
    with naming_the_remedy(path), ExitStack() as undo:
        present_identity(path)
        state_dir = StateDir(path, "kvblock journal discard")
        undo.callback(state_dir.release)
        identity = present_identity(path)
        journal_directory(path, identity)
        opened = Opened(identity, identity, True, host_died(identity))
        journal = _journal_of(path, opened)
        undo.callback(journal.close)
        found = recover(journal, Bounds(1, 1, 2**20))
        _refuse_lost_records(opened, journal)
        if name not in found.registry.pools:
            raise JournalError(f"{path} has no pool {name}")
        journal.begin()
        journal.append(journal.position, [codec.encode(DeletePool(name))])


def set_aside(path: Path) -> list[Path]:
    """Set aside what a server has left that is not running; the next one begins with empty pools.

    Answers where everything is now.

    Raises:
        StateDirInUse: it is running.
        JournalError: it cannot be done, or there is nothing.

    """
    if not path.is_dir():
        raise JournalError(f"{path} is no state directory")
    state_dir = StateDir(path, "kvblock journal set-aside")
    try:
        moved = state_dir.set_aside()
    finally:
        state_dir.release()
    if not moved:
        raise JournalError(f"{path} has nothing to set aside")
    return moved


def _begin(journal: Journal, registry: Registry, records: list[bytes], now_ms: int | None) -> None:
    """Have a journal written to that agrees with the configuration by these records."""
    journal.begin()
    if records:
        journal.append(journal.position, records)
    now_ms = time.monotonic_ns() // 1_000_000 if now_ms is None else now_ms
    for entry in registry.pools.values():
        leases.begin_anew(entry.pool, now_ms)


def _journal_of(path: Path, found: Opened) -> FileJournal:
    """The journal that is to be served from a state directory."""
    identity = found.identity
    return FileJournal(
        path / str(identity.server_epoch),
        identity.server_epoch,
        identity.durability,
        host_died=found.host_died,
        is_marked=found.is_marked,
    )


def _refuse_lost_records(found: Opened, journal: FileJournal) -> None:
    """Raises JournalDamaged for an identity without an `end`, whose server has written records."""
    if found.goes_on and not found.is_marked and not journal.position:
        raise JournalDamaged(f"{journal.directory} is to have a journal, and has no record")


def events_of_removal(path: Path, former_seconds: float) -> list[LogEvent]:
    """Remove what was set aside longer ago, and tell what became of it."""
    try:
        removed = remove_former(path, former_seconds)
    except JournalError as error:
        event = "what was set aside could not be removed"
        return [LogEvent("warning", event, {"problem": str(error)})]
    event = "what was set aside long ago was removed"
    return [LogEvent("info", event, {"path": str(one)}) for one in removed]


def _events_of_former(aside: list[Path], former_seconds: float) -> list[LogEvent]:
    event = "the journal of a former server epoch was set aside"
    fields = {"former_state_seconds": former_seconds}
    return [LogEvent("info", event, {"directory": str(one), **fields}) for one in aside]


def _events(
    path: Path, found: Opened, journal: FileJournal, recovered: Recovered
) -> list[LogEvent]:
    events = []
    identity, previous = found.identity, found.found
    if previous is not None and not found.goes_on:
        event = "the host was rebooted, so the blocks of before are gone; all pools are empty"
        fields = {
            "server_epoch": identity.server_epoch,
            "previous_server_epoch": previous.server_epoch,
            "boot_id": identity.boot_id,
            "previous_boot_id": previous.boot_id,
        }
        events.append(LogEvent("warning", event, fields))
    for tail in journal.tails:
        cut = {"file": str(tail.path), "bytes": tail.size, "position": recovered.position}
        events.append(
            LogEvent("warning", "the journal ended in an unfinished write, which was cut", cut)
        )
    pools = [entry.pool for entry in recovered.registry.pools.values()]
    fields = {
        "state_dir": str(path),
        "server_epoch": identity.server_epoch,
        "durability": identity.durability,
        "position": recovered.position,
        "snapshot_position": recovered.snapshot_position,
        "records": recovered.records,
        "held_blocks": sum(pool.blocks.held for pool in pools),
        "sequences": sum(len(e.tables) for pool in pools for e in pool.engines.values()),
        "seconds": round(recovered.seconds, 3),
    }
    events.append(LogEvent("info", "journal", fields))
    return events


def _reconciled(
    path: Path, configured: Sequence[Geometry], registry: Registry, events: list[LogEvent]
) -> list[bytes]:
    """Make and delete the pools that are configured now and are not any more; the records of it."""
    wanted = {geometry.name: geometry for geometry in configured}
    problems: list[str] = []
    changes: list[PoolChange] = []
    for name, (pool, was_configured, _) in registry.pools.items():
        geometry = wanted.get(name)
        if geometry == pool.geometry or (geometry is None and not was_configured):
            continue
        if geometry is not None:
            problems.append(_changed(path, pool, geometry))
        elif pool.blocks.held or pool.blocks.quarantined:
            problems.append(_missing(path, pool))
        else:
            changes.append(DeletePool(name))
            events.append(
                LogEvent("warning", "an empty pool is not configured any more", {"pool": name})
            )
    if problems:
        raise GeometryChanged("\n".join(problems))
    floor = registry.last_epoch
    missing = [geometry for name, geometry in wanted.items() if name not in registry.pools]
    changes += [CreatePool(geometry, floor, configured=True) for geometry in missing]
    for change in changes:
        registry.apply(change)
    return [codec.encode(change) for change in changes]


def _changed(path: Path, pool: Pool, geometry: Geometry) -> str:
    return (
        f"pool {geometry.name} is configured with {_words(geometry)}, but {path} has it with"
        f" {_words(pool.geometry)} and {pool.blocks.held} held blocks."
        f"{_way_out(path, geometry.name)}"
    )


def _missing(path: Path, pool: Pool) -> str:
    name = pool.geometry.name
    return (
        f"pool {name} is not configured any more, but {path} has it with {_words(pool.geometry)}"
        f" and {pool.blocks.held} held blocks.{_way_out(path, name)}"
    )


def _words(geometry: Geometry) -> str:
    words = (
        f"total={geometry.total_blocks},block_size={geometry.block_size}"
        f",device={geometry.device_id},reserved={geometry.reserved_blocks}"
        f",block_bytes={geometry.block_bytes},regions={geometry.regions}"
    )
    words += f",layout={geometry.layout!r}" if geometry.layout else ""
    return words if geometry.memory == NO_MEMORY else f"{words},memory={geometry.memory}"


def _way_out(path: Path, name: str) -> str:
    return (
        f" Configure it as it was and drain its engines first, or look at what they hold with"
        f" `kvblock journal export {path}` and drop it with"
        f" `kvblock journal discard {path} --pool {name}`"
    )
