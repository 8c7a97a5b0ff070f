"""Servers over each journal: a process over files, and a thread over one in memory."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import kvblock
from kvblock_service import main
from kvblock_service.config import PoolConfig, ServerSettings
from kvblock_service.persistence import PersistentState
from kvblock_service.rpc.server import KVBlockServer
from tests.memory_journal import MemoryJournal

PATIENCE = 60.0


class Kind(Protocol):
    """A journal that outlives its servers."""

    def serving(self, *arguments: str) -> AbstractContextManager[str]:
        """Run a server for the block, and have it die at its end; gives its address."""

    def has_snapshot(self) -> bool: ...


class InFiles:
    def __init__(self, place: Path) -> None:
        self._state = place / "state"

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[str]:
        options = ["--state-dir", str(self._state), *arguments]
        with kvblock.EmbeddedServer(["main:total=64,quarantine=0"], options) as server:
            yield server.address
            server.process.kill()
            server.process.wait()

    def has_snapshot(self) -> bool:
        return any(self._state.glob("*/snapshot-*"))


class InMemory:
    def __init__(self, place: Path) -> None:
        self.journal = MemoryJournal(1_700_000_000_000)
        self._address = f"unix:{place / 'kvblock.sock'}"

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[str]:
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        config = ServerSettings(
            pools=(PoolConfig(name="main", total_blocks=64, quarantine=0),),
            listen=(self._address,),
            tls_key=None,
            snapshot_records=int(options.get("--snapshot-records", "50000")),
        )
        self.journal.synced = options.get("--durability") == "host"
        running = _Running(config, self.journal)
        try:
            yield self._address
        finally:
            running.die()
            # Nothing of the process is left: neither its pools nor what it had yet to write.
            self.journal = self.journal.restarted()

    def has_snapshot(self) -> bool:
        return self.journal.snapshot() is not None


class _Running:
    """A server in a thread of its own, over a journal that is given."""

    def __init__(self, config: ServerSettings, journal: MemoryJournal) -> None:
        self._config = config
        self._journal = journal
        self._begun = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._begun.wait(PATIENCE)

    def die(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        state = PersistentState(self._config, self._journal)
        server = KVBlockServer(
            main.build_host(self._config, state), main.service_options(self._config)
        )
        compacting = asyncio.create_task(state.run())
        try:
            server.bind(self._config.listen[0])
            await server.start()
            self._begun.set()
            await self._end.wait()
        finally:
            compacting.cancel()
            await server.drain(0.0)
            server.release()


KINDS = (InFiles, InMemory)
