"""Pools with memory: made at the start and at run time, found again after a kill, removed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import kvblock
from kvblock_service.memory.owner_file import owner_path
from tests.conftest import ServerFactory
from tests.integration.client.flavours import AsyncFlavour, Flavour
from tests.integration.spawned import spawned

BLOCKS, BYTES = 16, 8192
POOL = f"main:total={BLOCKS},reserved=1,block_bytes={BYTES},regions=2,memory=shm"


@pytest.fixture
def memory_dir(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.mkdir()
    return path


@pytest.fixture(params=[Flavour, AsyncFlavour])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    made: Flavour = request.param()
    yield made
    made.end()


def path_of(uri: str) -> Path:
    assert uri.startswith("shm:///")
    return Path(unquote(uri.removeprefix("shm://")))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_engines_are_told_of_the_memory_and_share_it(
    server_factory: ServerFactory, memory_dir: Path, flavour: Flavour
) -> None:
    server = server_factory((POOL,), ("--memory-dir", str(memory_dir)))
    with flavour.entered(flavour.client(server.address)) as kv:
        (pool,) = flavour.do(kv.list_pools())
        path = path_of(pool.memory_uri)
        assert (pool.memory, path.parent) == ("shm", memory_dir)
        assert path.stat().st_size == BLOCKS * BYTES
        with flavour.entered(kv.session(engine="a")) as session:
            lease = flavour.do(kv.attach_engine(engine="b"))
            assert session.memory_uri == lease.memory_uri == pool.memory_uri
            (block,) = flavour.do(session.step(allocate=[1])).block_numbers
            with session.arena() as one, lease.arena() as other:
                assert one.piece_bytes == BYTES // 2
                one.block(block, 1)[:5] = b"bytes"
                assert bytes(other.block(block, 1)[:5]) == b"bytes"
                with pytest.raises(kvblock.InvalidArgumentError, match="is reserved"):
                    one.block(0)
            flavour.do(lease.detach())
    assert server.stop() == 0
    assert names(memory_dir) == []


def test_a_session_that_is_not_attached_has_no_arena(
    server_factory: ServerFactory, memory_dir: Path
) -> None:
    server = server_factory((POOL,), ("--memory-dir", str(memory_dir)))
    with kvblock.connect(server.address) as kv, pytest.raises(kvblock.ClosedError):
        kv.session().arena()


def test_a_restart_finds_the_memory_with_its_content(memory_dir: Path, tmp_path: Path) -> None:
    where = ["--memory-dir", str(memory_dir), "--state-dir", str(tmp_path / "state")]
    with (
        kvblock.EmbeddedServer([POOL], where) as server,
        kvblock.connect(server.address, engine="a") as kv,
    ):
        lease = kv.attach_engine(ttl=3600.0)
        (block,) = kv.allocate(1).block_numbers  # type: ignore[union-attr]
        uri, arena = lease.memory_uri, lease.arena()
        arena.block(block)[:4] = b"kept"
        made = path_of(uri).stat()
        server.process.kill()
        server.process.wait()
        assert names(memory_dir) == [path_of(uri).name, owner_path(path_of(uri)).name]
        # An engine goes on while the server is down.
        arena.block(block)[4:8] = b"here"
        epoch = lease.epoch
        lease.close()
    with kvblock.EmbeddedServer([POOL], where) as server:
        with kvblock.connect(server.address, engine="a") as kv:
            lease = kv.attach_engine(epoch=epoch)
            assert lease.memory_uri == uri
            with lease.arena() as again:
                assert bytes(again.block(block)[:8]) == b"kepthere"
            arena.block(block)[:4] = b"same"
            lease.detach()
        assert server.stop() == 0
    assert path_of(uri).stat()[:3] == made[:3]
    arena.close()


def test_memory_comes_and_goes_with_its_pool(
    server_factory: ServerFactory, memory_dir: Path
) -> None:
    server = server_factory(("main:total=8",), ("--memory-dir", str(memory_dir)))
    with kvblock.connect(server.address) as kv:
        made = kv.create_pool("side", 4, block_bytes=4096, memory="shm", request_id="c")
        path = path_of(made.memory_uri)
        assert path.stat().st_size == 4 * 4096
        assert kv.create_pool("side", 4, block_bytes=4096, memory="shm", request_id="c") == made
        with pytest.raises(kvblock.AlreadyExistsError):
            kv.create_pool("side", 4, block_bytes=4096, memory="shm")
        with kv.attach_engine(pool="side") as lease, lease.arena() as arena:
            with pytest.raises(kvblock.FailedPreconditionError):
                kv.delete_pool("side")
            arena.block(3)[:] = bytes(4096)
        kv.delete_pool("side")
        assert names(memory_dir) == []
        kv.create_pool("side", 2, block_bytes=4096, memory="shm")
        assert path.stat().st_size == 2 * 4096


def test_memory_that_cannot_be_had_makes_no_pool(
    server_factory: ServerFactory, memory_dir: Path
) -> None:
    server = server_factory(("main:total=8",), ("--memory-dir", str(memory_dir)))
    with kvblock.connect(server.address) as kv:
        with pytest.raises(kvblock.MemoryUnusableError, match="are missing") as raised:
            kv.create_pool("side", 2**31 - 1, block_bytes=2**30, memory="shm")
        assert raised.value.reason is kvblock.ErrorReason.MEMORY_UNUSABLE
        assert [pool.pool for pool in kv.list_pools()] == ["main"]
        assert names(memory_dir) == []
        with pytest.raises(kvblock.InvalidArgumentError, match="needs block_bytes"):
            kv.create_pool("side", 8, memory="shm")
        with pytest.raises(kvblock.InvalidArgumentError, match="must be none, shm, or a URI"):
            kv.create_pool("side", 8, memory="somewhere")


def test_a_uri_is_handed_on_unread(server_factory: ServerFactory) -> None:
    uri = "cuda-ipc://broker/7?device=0"
    server = server_factory((f"main:total=8,memory={uri}",))
    with kvblock.connect(server.address) as kv, kv.session() as session:
        assert session.memory_uri == uri
        assert [pool.memory_uri for pool in kv.list_pools()] == [uri]
        with pytest.raises(kvblock.MemoryUnusableError, match="cuda-ipc://broker/7"):
            session.arena()


def test_a_pool_without_memory_says_so(server: kvblock.EmbeddedServer) -> None:
    with kvblock.connect(server.address) as kv, kv.session() as session:
        assert session.memory_uri == ""
        assert [(pool.memory, pool.memory_uri) for pool in kv.list_pools()] == [("none", "")]
        with pytest.raises(kvblock.MemoryUnusableError, match="memory=none"):
            session.arena()


@pytest.mark.parametrize(("socket", "expected"), [("0600", 0o600), ("0660", 0o660)])
def test_memory_is_open_to_whom_the_socket_is(
    memory_dir: Path, tmp_path: Path, socket: str, expected: int
) -> None:
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and "pytest" in str(path):
            path.chmod(0o755)
    where = ("--memory-dir", str(memory_dir), "--listen", f"unix:{tmp_path}/kv.sock")
    with spawned("--pool", POOL.replace("main", "side"), *where, "--unix-mode", socket) as server:
        assert server.first_line().startswith("kvblock ready")
        (path,) = (path for path in memory_dir.iterdir() if path.suffix != ".owner")
        assert stat.S_IMODE(path.stat().st_mode) == expected
        assert stat.S_IMODE(owner_path(path).stat().st_mode) == 0o600


def refused(pools: list[str], where: list[str]) -> str:
    """What a server says that does not get ready."""
    with pytest.raises(kvblock.ServerStartError) as raised:
        kvblock.EmbeddedServer(pools, where).start()
    assert str(raised.value).count("cannot have the memory of a pool") == 1, raised.value
    return str(raised.value)


def test_a_start_without_its_memory_is_refused_and_changes_nothing(
    memory_dir: Path, tmp_path: Path
) -> None:
    where = ["--memory-dir", str(memory_dir), "--state-dir", str(tmp_path / "state")]
    huge = "main:total=2147483647,block_bytes=1073741824,memory=shm"
    assert "are missing" in refused([POOL.replace("main", "side"), huge], where)
    assert names(memory_dir) == []
    # The pool is not in the journal: it may be another one now.
    with kvblock.EmbeddedServer([POOL], where) as server:
        assert server.stop() == 0
    (path,) = (path for path in memory_dir.iterdir() if path.suffix != ".owner")
    target = tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    assert "it is a symbolic link, not a regular file" in refused([POOL], where)
    path.unlink()
    target.rename(path)
    with kvblock.EmbeddedServer([POOL], where) as server:
        assert server.stop() == 0


def test_memory_of_a_pool_that_is_not_configured_any_more_goes(
    memory_dir: Path, tmp_path: Path
) -> None:
    where = ["--memory-dir", str(memory_dir), "--state-dir", str(tmp_path / "state")]
    with kvblock.EmbeddedServer([POOL], where) as server:
        assert server.stop() == 0
    assert len(names(memory_dir)) == 2
    with kvblock.EmbeddedServer(["other:total=8"], where) as server:
        assert names(memory_dir) == []
        server.stop()
