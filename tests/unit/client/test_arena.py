"""A pool's memory as a process maps it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvblock import Arena
from kvblock.errors import (
    ClosedError,
    FailedPreconditionError,
    InvalidArgumentError,
    MemoryUnusableError,
    UsageError,
)

BLOCKS, RESERVED, BYTES, REGIONS = 8, 1, 96, 3
PIECE = BYTES // REGIONS


@dataclass(frozen=True)
class Attached:
    memory_uri: str
    total_blocks: int = BLOCKS
    reserved_blocks: int = RESERVED
    block_bytes: int = BYTES
    regions: int = REGIONS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kvblock memory"
    path.write_bytes(bytes(BLOCKS * BYTES))
    return path


@pytest.fixture
def attached(path: Path) -> Attached:
    return Attached(f"shm://{path.parent}/kvblock%20memory")


def test_a_block_has_a_piece_in_each_region(attached: Attached, path: Path) -> None:
    with Arena.open(attached) as arena:
        assert arena.path == str(path)
        assert arena.piece_bytes == PIECE
        for region in range(REGIONS):
            for block in range(RESERVED, BLOCKS):
                piece = arena.block(block, region)
                assert (len(piece), piece.readonly, piece.format) == (PIECE, False, "B")
                piece[:] = bytes([16 * region + block]) * PIECE
        del piece
        assert arena.region(1)[5 * PIECE] == 16 + 5
    found = path.read_bytes()
    want = [16 * r + b if b else 0 for r in range(REGIONS) for b in range(BLOCKS)]
    assert found == b"".join(bytes([one]) * PIECE for one in want)


def test_two_arenas_see_the_same_bytes(attached: Attached) -> None:
    with Arena.open(attached) as one, Arena.open(attached) as other:
        one.block(7, 2)[:4] = b"abcd"
        assert bytes(other.block(7, 2)[:4]) == b"abcd"


@pytest.mark.parametrize(
    ("block", "region", "problem"),
    [
        (8, 0, "block_number: 8 must be a whole number from 0 to 7"),
        (-1, 0, "block_number: -1 must be a whole number from 0 to 7"),
        (0, 0, "block_number 0 is reserved: the pool issues none below 1"),
        (1, 3, "region: 3 must be a whole number from 0 to 2"),
        (1, -1, "region: -1 must be a whole number from 0 to 2"),
        ("1", 0, "block_number: '1' must be"),
    ],
)
def test_blocks_out_of_range_are_errors(
    attached: Attached, block: int, region: int, problem: str
) -> None:
    with Arena.open(attached) as arena, pytest.raises(InvalidArgumentError, match=problem):
        arena.block(block, region)


def test_numpy_shares_the_bytes(attached: Attached) -> None:
    with Arena.open(attached) as arena:
        array = arena.numpy("float32")
        assert (array.shape, array.dtype) == ((REGIONS, BLOCKS, PIECE // 4), np.float32)
        array[1, 4] = 2.5
        assert bytes(arena.block(4, 1)) == np.full(PIECE // 4, 2.5, np.float32).tobytes()
        arena.block(4, 1)[:4] = bytes(4)
        assert array[1, 4, 0] == 0
        assert arena.numpy().dtype == np.uint8
        with pytest.raises(InvalidArgumentError, match="no multiple"):
            arena.numpy("V33")
        del array


def test_torch_is_asked_for_the_same(attached: Attached, monkeypatch: pytest.MonkeyPatch) -> None:
    half = SimpleNamespace(itemsize=2)
    made = SimpleNamespace(view=lambda *shape: shape)
    torch = SimpleNamespace(uint8=SimpleNamespace(itemsize=1), frombuffer=lambda *_, dtype: made)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with Arena.open(attached) as arena:
        assert arena.torch() == (REGIONS, BLOCKS, PIECE)
        assert arena.torch(half) == (REGIONS, BLOCKS, PIECE // 2)


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_library_that_is_missing_is_named(
    attached: Attached, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with Arena.open(attached) as arena, pytest.raises(MemoryUnusableError, match=name):
        getattr(arena, name)()


def test_views_in_use_keep_it_open(attached: Attached) -> None:
    arena = Arena.open(attached)
    piece, array = arena.block(1), arena.numpy()
    with pytest.raises(UsageError, match="has views that are still in use"):
        arena.close()
    piece[0] = 1
    assert array[0, 1, 0] == 1
    piece.release()
    with pytest.raises(UsageError, match="has views that are still in use"):
        arena.close()
    del array
    arena.close()
    arena.close()
    assert arena.closed
    for use in (arena.numpy, arena.region, lambda: arena.block(1)):
        with pytest.raises(ClosedError, match="was closed"):
            use()


def test_leaving_by_an_error_tells_that_error(attached: Attached) -> None:
    def divide(arena: Arena) -> None:
        with arena:
            piece = arena.block(1)
            piece[0] = 1 // 0

    with pytest.raises(ZeroDivisionError):
        divide(Arena.open(attached))
    with pytest.raises(UsageError, match="still in use"), Arena.open(attached) as arena:
        piece = arena.block(1)
    del piece


def test_a_forked_child_goes_on_with_the_mapping(attached: Attached) -> None:
    with Arena.open(attached) as arena:
        child = os.fork()
        if not child:
            arena.block(3)[:5] = b"child"
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert bytes(arena.block(3)[:5]) == b"child"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("", "configured with memory=none"),
        ("cuda-ipc://broker/7", "the pool's memory is 'cuda-ipc://broker/7', and an arena maps"),
        ("shm://relative", "the pool's memory is 'shm://relative'"),
        ("shm:///nowhere/there", "/nowhere/there, the pool's memory, cannot be opened: No such"),
        ("shm:///dev/null", "/dev/null has 0 bytes"),
    ],
)
def test_memory_that_cannot_be_mapped_says_why(uri: str, problem: str) -> None:
    with pytest.raises(MemoryUnusableError, match=problem) as raised:
        Arena.open(Attached(uri))
    assert isinstance(raised.value, FailedPreconditionError)


def test_another_geometry_is_refused(attached: Attached, path: Path) -> None:
    with pytest.raises(MemoryUnusableError, match="has 768 bytes, and the pool's memory has 672"):
        Arena.open(Attached(attached.memory_uri, total_blocks=7))
    with pytest.raises(MemoryUnusableError, match="make no 5 regions"):
        Arena.open(Attached(attached.memory_uri, regions=5))
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(MemoryUnusableError, match="cannot be opened"):
        Arena.open(Attached(f"shm://{link}"))
