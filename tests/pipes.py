"""Pipes whose reader does not read, until a test does."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

CAPACITY = 4096


class Pipe(NamedTuple):
    """A pipe of 4 KiB: its two descriptors."""

    reads: int
    writes: int

    def fill(self) -> None:
        """Leave no room for a byte."""
        os.write(self.writes, b"-" * CAPACITY)

    def drain(self) -> None:
        """Read what `fill` has written."""
        assert self.read(CAPACITY) == "-" * CAPACITY

    def read(self, length: int) -> str:
        """Wait for so many bytes."""
        data = b""
        while len(data) < length and (part := os.read(self.reads, length - len(data))):
            data += part
        return data.decode()

    def read_all(self) -> str:
        """Wait for the end; `writes` must have been closed, or is closed by this."""
        data = b""
        while part := os.read(self.reads, 65_536):
            data += part
        return data.decode()


@contextmanager
def small_pipe() -> Iterator[Pipe]:
    """A pipe of 4 KiB; a descriptor that the test has closed is left alone."""
    pipe = Pipe(*os.pipe())
    fcntl.fcntl(pipe.writes, fcntl.F_SETPIPE_SZ, CAPACITY)
    try:
        yield pipe
    finally:
        for descriptor in pipe:
            try:
                os.close(descriptor)
            except OSError:  # closed by the test
                continue
