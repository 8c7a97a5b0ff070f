"""Ends a replay at a good moment when a signal asks for it.

An exception that a signal handler raises can strike anywhere, also while gRPC holds a lock, and
nothing that needs the lock would ever end. So the first SIGINT or SIGTERM is only noted, and raised
between two Steps, where the sessions can still be detached. A second one acts at once.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from kvblock.errors import KVBlockError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_wait() -> Iterator[Callable[[], None]]:
    """Note signals in the block and give a function that raises for one that came.

    It raises KeyboardInterrupt for SIGINT and SystemExit with 128 + 15 for SIGTERM. A call that
    fails after a signal, because the server was sent it too, counts as ended by the signal. Only
    for the main thread.
    """
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def check() -> None:
        if came:
            raise KeyboardInterrupt if came[0] == signal.SIGINT else SystemExit(128 + came[0])

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield check
    except KVBlockError:
        check()
        raise
    finally:
        restore()
