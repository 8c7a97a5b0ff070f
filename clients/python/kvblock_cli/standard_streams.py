"""The standard descriptors and streams, as every command can rely on them.

Rules:
- Descriptors 0 to 2 are open before anything else is opened: a file, socket or event loop that got
  one of these numbers would be read, written to or closed as if it were a standard stream.
- Where one was closed it is /dev/null. A stdout that was closed cannot be written to all the same.
- What cannot be written to stdout raises OutputError, whoever writes it.
- What cannot be written to stderr is lost: there is nobody to tell. The exit code stays.
- Needs the standard library only.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class OutputError(Exception):
    """Stdout cannot be written to; `reader_is_gone` when it is a pipe that nobody reads."""

    def __init__(self, error: OSError) -> None:
        closed = error.errno == errno.EBADF
        super().__init__("it is closed" if closed else error.strerror or str(error))
        self.reader_is_gone = error.errno == errno.EPIPE


def set_up() -> None:
    """Open what was closed, and give the program its `sys.stdin`, `sys.stdout` and `sys.stderr`."""
    # Python starts with None in place of a stream whose descriptor is closed.
    for number, flags in ((_STDIN, os.O_RDONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number, flags)
    if cast("TextIO | None", sys.stdin) is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115 - it is open as long as the program
    sys.stdout = _stream(_STDOUT, sys.stdout, _raise, line_buffering=os.isatty(_STDOUT))
    sys.stderr = _stream(_STDERR, sys.stderr, lambda _: None, line_buffering=True)


def discard_output() -> None:
    """Drop what is written to stdout from now on, and what its buffer has.

    Python writes the buffer at its exit, and complains about what cannot be written.
    """
    _open_null(_STDOUT, os.O_WRONLY)


def _open_null(number: int, flags: int) -> None:
    null = os.open(os.devnull, flags)
    if null == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(null, number)
        os.close(null)


def _stream(
    number: int,
    replaced: TextIO | None,
    on_error: Callable[[OSError], None],
    *,
    line_buffering: bool,
) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(number, on_error)),
        encoding=replaced.encoding if replaced else None,
        errors=replaced.errors if replaced else "backslashreplace",
        line_buffering=line_buffering,
    )


class _Descriptor(io.FileIO):
    """Writes to a descriptor; `on_error` gets the error of what cannot be written."""

    def __init__(self, number: int, on_error: Callable[[OSError], None]) -> None:
        super().__init__(number, "wb", closefd=False)
        self._on_error = on_error

    def write(self, data: ReadableBuffer, /) -> int:
        """Write data, or a part of it; answers how many bytes need not be written again."""
        try:
            while True:
                # None where another process has made the descriptor one that does not block.
                written = cast("int | None", super().write(data))
                if written is not None:
                    return written
                select.select((), (self,), ())
        except OSError as error:
            self._on_error(error)
            return memoryview(data).nbytes


def _raise(error: OSError) -> None:
    raise OutputError(error) from error
