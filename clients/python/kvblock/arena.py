"""The memory that a pool numbers, mapped by this process.

Rules:
- The layout is `regions` arrays one after the other, each of `total_blocks` pieces of
  `block_bytes / regions` bytes. A block has the piece of its number in each region.
- Nothing is copied: what is read and written are the bytes that all engines of the pool see. Only
  blocks that this engine holds under a valid lease are its own to write, which nobody checks here:
  ask `lease_valid` before.
- A child process after a fork may go on reading and writing through a mapping that it was given; it
  has no lease of its own, so what it may write is up to its parent.
- numpy and torch are imported when they are asked for, and are no dependency.
"""

from __future__ import annotations

import mmap
import os
import stat
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex
from urllib.parse import unquote

from kvblock import arguments
from kvblock.errors import ClosedError, InvalidArgumentError, MemoryUnusableError, UsageError

if TYPE_CHECKING:
    import numpy as np

_SCHEME = "shm://"


class Attached(Protocol):
    """What an attach tells of a pool's memory: a session, or an engine's lease."""

    @property
    def memory_uri(self) -> str:
        """Where it is; empty when the pool has none."""

    @property
    def total_blocks(self) -> int:
        """Blocks in the pool."""

    @property
    def reserved_blocks(self) -> int:
        """Blocks that are never issued: those with the lowest numbers."""

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, in all regions together."""

    @property
    def regions(self) -> int:
        """Arrays that the memory has."""


class Arena:
    """A pool's memory; made by `open`, or by `arena` of a session or an engine's lease.

    `total_blocks`, `reserved_blocks`, `block_bytes` and `regions` are those of the pool,
    `piece_bytes` is what a block has in one region.
    """

    def __init__(self, attached: Attached) -> None:
        """Map the memory of a pool; see `open`."""
        self.total_blocks = attached.total_blocks
        self.reserved_blocks = attached.reserved_blocks
        self.block_bytes = attached.block_bytes
        self.regions = attached.regions
        self.path = _path_of(attached.memory_uri)
        size = self.total_blocks * self.block_bytes
        if not size or not self.regions or self.block_bytes % self.regions:
            raise MemoryUnusableError(
                f"{self.path}: {self.total_blocks} blocks of {self.block_bytes} bytes make no"
                f" {self.regions} regions"
            )
        self.piece_bytes = self.block_bytes // self.regions
        self._map = _mapped(self.path, size)

    @classmethod
    def open(cls, attached: Attached) -> Arena:
        """Map the memory of the pool that a session or a lease is attached to.

        Raises:
            MemoryUnusableError: the pool has no memory, it is none that this class can map, or the
                file is not what the attach said.
            ClosedError: the session is not attached yet.

        """
        return cls(attached)

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except UsageError:
            # What ends the block has views in its frames; it is what has to be raised.
            if error is None:
                raise

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._map.closed

    def block(self, block_number: SupportsIndex, region: SupportsIndex = 0) -> memoryview:
        """The bytes of a block in one region, to read and to write: `piece_bytes` of them.

        Raises:
            InvalidArgumentError: the pool has no such block or region, or never issues it.
            ClosedError: it was closed.

        """
        number = arguments.whole_number("block_number", block_number, self.total_blocks - 1)
        if number < self.reserved_blocks:
            raise InvalidArgumentError(
                f"block_number {number} is reserved: the pool issues none below"
                f" {self.reserved_blocks}"
            )
        index = arguments.whole_number("region", region, self.regions - 1)
        start = (index * self.total_blocks + number) * self.piece_bytes
        return self._whole()[start : start + self.piece_bytes]

    def region(self, region: SupportsIndex = 0) -> memoryview:
        """The bytes of all blocks in one region, in the order of their numbers.

        Raises:
            InvalidArgumentError: the pool has no such region.
            ClosedError: it was closed.

        """
        index = arguments.whole_number("region", region, self.regions - 1)
        size = self.total_blocks * self.piece_bytes
        return self._whole()[index * size : (index + 1) * size]

    def numpy(self, dtype: Any = "uint8") -> np.ndarray[Any, Any]:
        """All bytes as a numpy array: `[regions, total_blocks, values of a piece]`.

        Raises:
            InvalidArgumentError: a piece is no whole number of such values.
            MemoryUnusableError: numpy is not installed.
            ClosedError: it was closed.

        """
        library: Any = _library("numpy")
        kind = library.dtype(dtype)
        shape = self._shape(kind, kind.itemsize)
        found: np.ndarray[Any, Any] = library.frombuffer(self._whole(), kind).reshape(shape)
        return found

    def torch(self, dtype: Any = None) -> Any:
        """All bytes as a torch tensor on the CPU: `[regions, total_blocks, values of a piece]`.

        `dtype`: one of torch; None: `torch.uint8`.

        Raises:
            InvalidArgumentError: a piece is no whole number of such values.
            MemoryUnusableError: torch is not installed.
            ClosedError: it was closed.

        """
        library: Any = _library("torch")
        kind = library.uint8 if dtype is None else dtype
        shape = self._shape(kind, kind.itemsize)
        return library.frombuffer(self._whole(), dtype=kind).view(*shape)

    def close(self) -> None:
        """Unmap the memory; safe to repeat.

        Raises:
            UsageError: there are views of it still; nothing was changed.

        """
        try:
            self._map.close()
        except BufferError:
            raise UsageError(
                f"the arena {self.path} has views that are still in use (memoryview, numpy array"
                " or tensor); let go of them first"
            ) from None

    def _whole(self) -> memoryview:
        try:
            return memoryview(self._map)
        except ValueError:
            raise ClosedError(f"the arena {self.path} was closed") from None

    def _shape(self, kind: object, size: int) -> tuple[int, int, int]:
        if not size or self.piece_bytes % size:
            raise InvalidArgumentError(
                f"dtype {kind} has {size} bytes, and a block's {self.piece_bytes} in a region are"
                " no multiple of that"
            )
        return self.regions, self.total_blocks, self.piece_bytes // size


def _path_of(uri: str) -> str:
    if not uri:
        raise MemoryUnusableError(
            "the pool has no memory that kvblock knows of: it was configured with memory=none"
        )
    path = unquote(uri.removeprefix(_SCHEME))
    if not uri.startswith(_SCHEME) or not path.startswith("/"):
        raise MemoryUnusableError(
            f"the pool's memory is {uri!r}, and an arena maps {_SCHEME}/PATH only; open it by what"
            " belongs to that URI"
        )
    return path


def _mapped(path: str, size: int) -> mmap.mmap:
    try:
        number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MemoryUnusableError(
            f"{path}, the pool's memory, cannot be opened: {error.strerror}; it has to be where the"
            " server has it (a container needs the same memory_dir), and this user has to be one"
            " that may use the server's socket"
        ) from error
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise MemoryUnusableError(
                f"{path} has {found.st_size} bytes, and the pool's memory has {size}: it is not the"
                " file that the server made"
            )
        return mmap.mmap(number, size)
    except OSError as error:
        raise MemoryUnusableError(f"{path} cannot be mapped: {error.strerror}") from error
    finally:
        os.close(number)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MemoryUnusableError(f"{name} is not installed in this environment") from error
