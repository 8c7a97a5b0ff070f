"""A journal for a server whose `main` knows none yet: what the launcher puts in its place."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import kvblock_service.main as service
from kvblock_service.committer import Committer
from kvblock_service.config import ServerConfig
from kvblock_service.core.commands import Command, Stamp
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.host import Host, HostLimits
from kvblock_service.journal import codec
from kvblock_service.journal.compaction import Compactor, SnapshotLimits
from kvblock_service.journal.interface import JournalError
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.journal.records import Applied
from kvblock_service.pool_host import Log, PoolHost

TASKS: list[object] = []


class Writable:
    """The journal as the committer knows it."""

    waits_for_disk = False

    def __init__(self, opened: OpenedJournal) -> None:
        self.opened = opened

    def write(self, records: Sequence[bytes]) -> None:
        try:
            self.opened.journal.write(records)
        except JournalError as error:
            raise OSError(str(error)) from error


def wire(state_dir: Path) -> None:
    """Let the server keep a journal there."""

    def build_host(config: ServerConfig) -> Host:
        limits = config.limits
        bounds = Bounds(limits.engines_max, limits.sequences_per_engine_max, limits.request_ids_max)
        geometries = [
            Geometry(p.name, p.total_blocks, p.block_size, p.device_id) for p in config.pools
        ]
        try:
            opened = open_journal(state_dir, geometries, bounds)
        except JournalError as error:
            print(error, file=sys.stderr)
            sys.exit(4)
        log = Log(Committer(Writable(opened)), encode)
        waits = {
            p.name: None if p.quarantine is None else round(p.quarantine * 1000)
            for p in config.pools
        }
        pools = [
            PoolHost(entry.pool, limits.wait_queue_max, waits[entry.pool.geometry.name], log)
            for entry in opened.pools
        ]

        def new_pool(geometry: Geometry, quarantine_ms: int | None, floor: int) -> PoolHost:
            return PoolHost(Pool(geometry, bounds, floor), limits.wait_queue_max, quarantine_ms)

        compactor = Compactor(
            opened.journal, SnapshotLimits(1000, 1 << 22), bounds.request_ids_max, 1.0
        )
        TASKS.append(asyncio.get_running_loop().create_task(tick(compactor)))
        host_limits = HostLimits(limits.sessions_max, 1.0, limits.pools_max)
        epoch = opened.journal.server_epoch or time.time_ns() // 1_000_000
        return Host(pools, config.default_pool, host_limits, epoch, new_pool)

    service.build_host = build_host


async def tick(compactor: Compactor) -> None:
    while True:
        await asyncio.sleep(0.05)
        for fact in compactor.tick():
            service._log.info(str(fact))


def encode(pool: str, stamp: Stamp, command: Command) -> bytes:
    return codec.encode(Applied(pool, stamp, command))
