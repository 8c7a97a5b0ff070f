"""The memory of pools that come and go while a server runs."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.core.registry import Registry
from kvblock_service.errors import MemoryUnusable, PoolExists, PoolNotFound, StateLimit
from kvblock_service.host import Host, HostLimits
from kvblock_service.memory import FileAccess, ServerFiles, file_owner
from tests.unit.service.test_host import hosted

SIDE = Geometry("side", 4, 16, 0, block_bytes=4096, memory="shm")


class Files(ServerFiles):
    """Files whose making waits until it is let go on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, FileAccess(), file_owner(1, None))
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def take(self, pool: str, size: int) -> bool:
        self.begun.set()
        assert self.go_on.wait(30)
        return super().take(pool, size)


def host_of(files: Files, pools_max: int = 4) -> Host:
    registry = Registry(Bounds(8, 8, 8), 100)
    return Host(registry, hosted, "", HostLimits(8, 0.5, pools_max), 100, memory=files)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def names(directory: Path) -> list[str]:
    return sorted(path.name.rpartition("-")[2] for path in directory.iterdir())


def test_a_pool_has_its_memory_for_as_long_as_it_is_there(tmp_path: Path) -> None:
    files = Files(tmp_path)
    host = host_of(files)

    async def work() -> None:
        assert await host.create_pool_and_memory(SIDE, None, "c")
        assert host.memory_uri(SIDE) == f"shm://{files.path('side')}"
        assert not await host.create_pool_and_memory(SIDE, None, "c")
        with pytest.raises(PoolExists):
            await host.create_pool_and_memory(SIDE, None, "")
        assert names(tmp_path) == ["side", "side.owner"]
        assert await host.delete_pool_and_memory("side", "d")
        assert not await host.delete_pool_and_memory("side", "d")
        assert names(tmp_path) == []
        with pytest.raises(PoolNotFound):
            await host.delete_pool_and_memory("side", "")

    run(work())


def test_a_pool_without_memory_makes_no_file(tmp_path: Path) -> None:
    host = host_of(Files(tmp_path))
    plain, elsewhere = SIDE._replace(memory="none"), SIDE._replace(name="b", memory="dax:a")

    async def work() -> None:
        await host.create_pool_and_memory(plain, None, "")
        await host.create_pool_and_memory(elsewhere, None, "")
        assert [host.memory_uri(one) for one in (plain, elsewhere)] == ["", "dax:a"]
        assert names(tmp_path) == []

    run(work())


def test_no_memory_no_pool(tmp_path: Path) -> None:
    host = host_of(Files(tmp_path))
    with pytest.raises(MemoryUnusable, match=r"pool .side. cannot be had: .* are missing"):
        run(host.create_pool_and_memory(SIDE._replace(block_bytes=2**60), None, "c"))
    assert host.pools == {}
    run(host.create_pool_and_memory(SIDE, None, "c"))


def test_no_pool_no_memory(tmp_path: Path) -> None:
    host = host_of(Files(tmp_path), pools_max=0)
    with pytest.raises(StateLimit):
        run(host.create_pool_and_memory(SIDE, None, ""))
    assert names(tmp_path) == []


def test_a_name_that_is_taken_meanwhile(tmp_path: Path) -> None:
    files = Files(tmp_path)
    host = host_of(files)
    files.go_on.clear()

    async def work() -> None:
        slow = asyncio.ensure_future(host.create_pool_and_memory(SIDE, None, ""))
        await asyncio.to_thread(files.begun.wait, 30)
        host.create_pool(SIDE._replace(memory="none"), None, "")
        files.go_on.set()
        with pytest.raises(PoolExists):
            await slow
        assert names(tmp_path) == []

    run(work())


def test_a_call_that_is_cancelled_is_carried_out(tmp_path: Path) -> None:
    files = Files(tmp_path)
    host = host_of(files)
    files.go_on.clear()

    async def work() -> None:
        call = asyncio.ensure_future(host.create_pool_and_memory(SIDE, None, "c"))
        await asyncio.to_thread(files.begun.wait, 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        again = asyncio.ensure_future(host.create_pool_and_memory(SIDE, None, "c"))
        files.go_on.set()
        assert not await again
        assert list(host.pools) == ["side"]
        assert names(tmp_path) == ["side", "side.owner"]

    run(work())
