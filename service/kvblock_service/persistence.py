"""The state of a server that outlives its process: opened at the start, compacted, closed.

Rules:
- Pools come from the journal where there is one; a configuration without one begins empty.
- The memory of pools is there before anything is written, so that a start that cannot have it has
  changed nothing.
- What the journal has to tell goes to the log; with a snapshot, for how long it held the server up.
- A bug in the maintenance of the journal ends the writing, as one in a write does.
- Nothing here decides what is written: see `journal` and `committer`.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from kvblock_service.committer import Committer
from kvblock_service.config import ServerSettings
from kvblock_service.config.values import group_number, user_number
from kvblock_service.core.commands import SHM, CreatePool, Geometry
from kvblock_service.core.pool import Bounds
from kvblock_service.core.registry import Registry
from kvblock_service.journal.compaction import Compactor, SnapshotLimits
from kvblock_service.journal.interface import Journal, JournalDamaged, JournalError, LogEvent
from kvblock_service.journal.open import (
    GeometryChanged,
    events_of_removal,
    open_journal,
    take_up,
)
from kvblock_service.journal.state_dir import StateDir, StateDirInUse
from kvblock_service.memory import (
    FileOwner,
    ServerFiles,
    access_of_sockets,
    file_owner,
)

CANNOT_START = (StateDirInUse, GeometryChanged, JournalDamaged, JournalError)
"""Why a state directory cannot be served from; the text says what to do."""

_MEMORY_EVENTS = (
    "the memory of a pool was made",
    "the memory of a pool is used again",
    "memory that no pool has any more was removed",
)
_TICK_SECONDS = 0.25
_FORMER_LOOK_SECONDS = 3600.0

_log = logging.getLogger(__name__)


class PersistentState:
    """Pools as they begin, and the journal that they are restored from.

    `journal` takes the place of the one in the configuration's state directory.
    `server_epoch` grows with every start that begins with empty pools; `committer` is None for a
    server without a journal. `memory` has the memory files of the pools.

    Raises:
        MemoryFileError: the memory of a pool cannot be had.
        StateDirInUse, GeometryChanged, JournalDamaged, JournalError: see `open_journal`.

    """

    def __init__(self, config: ServerSettings, journal: Journal | None = None) -> None:
        bounds = Bounds(config.engines_max, config.sequences_per_engine_max, config.request_ids_max)
        geometries = [
            Geometry(
                pool.name,
                pool.total_blocks,
                pool.block_size,
                pool.device_id,
                pool.reserved_blocks,
                pool.block_bytes,
                pool.regions,
                pool.layout,
                pool.memory,
            )
            for pool in config.pools
        ]
        self.committer: Committer | None = None
        self._state_dir: StateDir | None = None
        self._compactor: Compactor | None = None
        self._config = config
        self._is_in_directory = journal is None and not config.ephemeral
        if journal is None and config.ephemeral:
            self.server_epoch = time.time_ns() // 1_000_000
            self.registry = Registry(bounds, self.server_epoch)
            for geometry in geometries:
                self.registry.apply(CreatePool(geometry, self.server_epoch, configured=True))
            self._begin_memory(self.registry, self.server_epoch)
            return
        if journal is not None:
            self.registry, events = take_up(journal, geometries, bounds)
            self._begin_memory(self.registry, journal.server_epoch)
        else:
            opened = open_journal(
                Path(config.state_dir),
                geometries,
                bounds,
                durability=config.durability,
                owner=" ".join(config.listen),
                former_seconds=config.former_state_seconds,
                prepare=self._begin_memory,
            )
            journal, self._state_dir, self.registry, events = opened
        _tell(events)
        self._former_seconds = config.former_state_seconds
        self.server_epoch = journal.server_epoch
        self.committer = Committer(journal)
        snapshot_limits = SnapshotLimits(config.snapshot_records, config.snapshot_bytes)
        self._compactor = Compactor(journal, snapshot_limits, config.request_ids_max)

    def _begin_memory(self, registry: Registry, server_epoch: int) -> None:
        """Have the memory of all pools there."""
        config = self._config
        state_dir = Path(config.state_dir) if self._is_in_directory else None
        self.memory = _memory_files(config, file_owner(server_epoch, state_dir))
        geometries = [entry.pool.geometry for entry in registry.pools.values()]
        sizes = {one.name: one.memory_bytes for one in geometries if one.memory == SHM}
        begun = self.memory.begin(sizes)
        for event, paths in zip(_MEMORY_EVENTS, begun, strict=True):
            for path in paths:
                _log.info(event, extra={"path": str(path)})

    async def run(self) -> None:
        """Have snapshots made when they are due, until cancelled or a bug ends the writing."""
        longest_ms = 0.0
        while self._compactor is not None and not self._has_bug():
            await asyncio.sleep(_TICK_SECONDS)
            started = time.perf_counter()
            events = self._compactor.tick()
            longest_ms = max(longest_ms, (time.perf_counter() - started) * 1000)
            for event in events:
                event.fields["held_up_ms"] = round(longest_ms, 2)
            _tell(events)
            if self._compactor.idle:
                longest_ms = 0.0

    def _has_bug(self) -> bool:
        """Whether the journal has run into one; pending callers fail with JournalBroken then."""
        assert self.committer is not None
        bug = self.committer.journal.bug
        if bug is not None:
            self.committer.break_down(bug)
        return bug is not None

    async def remove_former(self) -> None:
        """Remove what was set aside once its time has come, until cancelled."""
        while self._state_dir is not None:
            await asyncio.sleep(_FORMER_LOOK_SECONDS)
            path = self._state_dir.path
            _tell(await asyncio.to_thread(events_of_removal, path, self._former_seconds))

    async def watch(self) -> None:
        """Raise the bug that a write to the journal has run into, once one has."""
        if self.committer is not None:
            await self.committer.watch()

    async def close(self) -> None:
        """Write what is left and let go of the state directory."""
        if self.committer is not None and self._compactor is not None:
            await self.committer.close()
            self._compactor.stop()
            self.committer.journal.close()
        if self._state_dir is not None:
            self._state_dir.release()
        self.memory.close()


def _memory_files(config: ServerSettings, owner: FileOwner) -> ServerFiles:
    prefix = "unix:"
    sockets = [Path(one.removeprefix(prefix)) for one in config.listen if one.startswith(prefix)]
    user = user_number(config.unix_owner) if config.unix_owner else None
    group = group_number(config.unix_group) if config.unix_group else None
    access = access_of_sockets(sockets, int(config.unix_mode, 8), user, group)
    return ServerFiles(Path(config.memory_dir), access, owner)


def _tell(events: Sequence[LogEvent]) -> None:
    for level, event, fields in events:
        _log.log(logging.WARNING if level == "warning" else logging.INFO, event, extra=fields)
