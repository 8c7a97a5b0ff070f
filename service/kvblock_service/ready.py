"""The line on stdout that says where a server can be reached.

Rules:
- Whoever reads it, or does not, holds nothing up: a thread writes it.
- A stdout that cannot be written to is an error: somebody waits for the line. One that was closed
  is none: nobody does.
"""

import asyncio
import errno
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from kvblock_service.descriptors import write_all

_STDOUT = 1


class ReadyLineError(Exception):
    """The line could not be written; the text says why."""


def print_ready(
    listen: Sequence[str], metrics: str | None, ask_to_stop: Callable[[str], None]
) -> "asyncio.Future[None]":
    """Write the line; what is answered is done when it is written, or fails with ReadyLineError.

    `listen` and `metrics` are the addresses as they were bound; a failure asks for the stop.
    """
    words = ["kvblock ready", *(f"listen={address}" for address in listen)]
    if metrics is not None:
        words.append(f"metrics={metrics}")
    line = (" ".join(words) + "\n").encode()
    loop = asyncio.get_running_loop()
    printed: asyncio.Future[None] = loop.create_future()

    def write() -> None:
        problem = _written(line)
        # The loop is closed when it took longer than the server lived.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, problem)

    def settle(problem: str) -> None:
        if problem:
            printed.set_exception(ReadyLineError(problem))
            ask_to_stop("ready line")
        else:
            printed.set_result(None)

    threading.Thread(target=write, name="ready line", daemon=True).start()
    return printed


def _written(line: bytes) -> str:
    """Write a line to stdout; answers what went wrong, empty when nothing did."""
    try:
        write_all(_STDOUT, line)
    except OSError as error:
        return "" if error.errno == errno.EBADF else error.strerror or str(error)
    return ""
