"""The reaper with a clock that is moved by hand."""

import asyncio

import pytest

from kvblock_service.committer import Committer
from kvblock_service.core.commands import Allocate, Attach, Attached, CreatePool, Renew
from kvblock_service.core.pool import Bounds, Geometry
from kvblock_service.core.registry import PoolEntry, Registry
from kvblock_service.errors import StaleEpoch
from kvblock_service.host import Host, HostLimits
from kvblock_service.pool_host import PoolHost
from kvblock_service.reaper import STALL_MS, TICK_SECONDS, Reaper
from tests.unit.service.committing import Shelf
from tests.unit.service.test_host import Stream

TICK_MS = round(TICK_SECONDS * 1000)


class Scene:
    """A host with one pool, an engine with two blocks under a lease of a second, and a reaper."""

    def __init__(
        self, quarantine_ms: int | None = None, committer: Committer | None = None
    ) -> None:
        self.now_ms = 5000
        registry = Registry(Bounds(8, 8, 8))
        registry.apply(CreatePool(Geometry("main", 4, 16, 0), 0, configured=True))

        def hosted(entry: PoolEntry) -> PoolHost:
            return PoolHost(entry.pool, 8, quarantine_ms, committer, lambda: self.now_ms)

        self.host = Host(registry, hosted, "", HostLimits(8, 0.5, 8), 1)
        self.pool = self.host.pool("")
        self.reaper = Reaper(self.host, lambda: self.now_ms)
        attached, _ = self.pool.apply(Attach("a", 0, "", False, 1000, 0))
        assert isinstance(attached, Attached)
        self.epoch = attached.epoch
        self.pool.apply(Allocate("a", self.epoch, "", 1, 2))

    def pass_time(self, milliseconds: int) -> None:
        """Look at each tick, as a server that is not held up does."""
        for _ in range(milliseconds // TICK_MS):
            self.now_ms += TICK_MS
            self.reaper.look()

    @property
    def blocks(self) -> tuple[int, int, int]:
        state = self.pool.state()
        return state.free_blocks, state.held_blocks, state.quarantined_blocks


def test_lease_that_is_not_renewed_ends_and_its_blocks_come_back_after_the_quarantine() -> None:
    scene = Scene()
    scene.pass_time(900)
    assert scene.blocks == (2, 2, 0)
    scene.pass_time(100)
    assert scene.blocks == (2, 0, 2)
    scene.pass_time(900)
    assert scene.blocks == (2, 0, 2)
    scene.pass_time(100)
    assert scene.blocks == (4, 0, 0)


def test_pool_without_a_quarantine() -> None:
    scene = Scene(quarantine_ms=0)
    scene.pass_time(1300)
    assert scene.blocks == (4, 0, 0)


def test_expiry_ends_the_stream() -> None:
    scene = Scene()
    stream = Stream(epoch=scene.epoch)
    scene.host.enter(stream)
    scene.pass_time(900)
    assert stream.ended is None
    scene.pass_time(300)
    assert isinstance(stream.ended, StaleEpoch)


@pytest.mark.parametrize("stall_ms", [STALL_MS + TICK_MS + 1, 60_000, 86_400_000])
def test_after_a_stall_every_lease_has_its_full_time_again(stall_ms: int) -> None:
    scene = Scene()
    scene.pass_time(900)
    scene.now_ms += stall_ms
    scene.reaper.look()
    assert scene.blocks == (2, 2, 0)
    scene.pass_time(900)
    assert scene.blocks == (2, 2, 0)
    scene.pass_time(100)
    assert scene.blocks == (2, 0, 2)


def test_after_a_stall_every_quarantine_has_its_full_time_again() -> None:
    scene = Scene(quarantine_ms=2000)
    scene.pass_time(2900)
    assert scene.blocks == (2, 0, 2)
    scene.now_ms += 60_000
    scene.reaper.look()
    scene.pass_time(1900)
    assert scene.blocks == (2, 0, 2)
    scene.pass_time(100)
    assert scene.blocks == (4, 0, 0)


@pytest.mark.parametrize("renewed", [True, False])
def test_a_late_tick_leaves_a_lease_until_its_renewal_can_have_been_read(renewed: bool) -> None:
    scene = Scene()
    scene.pass_time(800)
    scene.now_ms += STALL_MS + TICK_MS
    scene.reaper.look()
    assert scene.blocks == (2, 2, 0)
    if renewed:
        scene.pool.apply(Renew("a", scene.epoch))
    scene.pass_time(TICK_MS)
    assert scene.blocks == ((2, 2, 0) if renewed else (2, 0, 2))


async def journal_fails() -> None:
    committer = Committer(Shelf())
    scene = Scene(committer=committer)
    committer.failure = "No space left on device"
    scene.pass_time(5000)
    assert scene.blocks == (2, 2, 0)
    committer.failure = None
    scene.pass_time(900)
    assert scene.blocks == (2, 2, 0)


def test_nothing_expires_while_the_journal_cannot_be_written() -> None:
    asyncio.run(journal_fails())


async def disk_is_full_when_two_leases_run_out() -> None:
    shelf = Shelf()
    # A clock that stands: the journal is never busy.
    committer = Committer(shelf, lambda: 0)
    scene = Scene(committer=committer)
    scene.pool.apply(Attach("b", 0, "", False, 1000, 0))
    shelf.problem = "No space left on device"
    scene.pass_time(1000)
    expired = scene.pool.state().expired_total
    assert (expired, scene.pool.writable) == (1, False)
    written = asyncio.Event()
    committer.when_written(written.set)
    shelf.problem = ""
    await written.wait()
    scene.pass_time(1000)
    assert scene.pool.state().expired_total == 2


def test_a_disk_that_fills_up_in_the_middle_of_a_tick_does_not_end_the_reaper() -> None:
    asyncio.run(disk_is_full_when_two_leases_run_out())
