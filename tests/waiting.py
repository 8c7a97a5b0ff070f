"""Waiting for what has to come true by and by, as a line of a log that a thread writes."""

import time
from collections.abc import Callable

LAST_RESORT = 60.0
"""Seconds after which a test gives up that would wait for ever."""


def happens(condition: Callable[[], object]) -> None:
    """Return when a condition has come true."""
    deadline = time.monotonic() + LAST_RESORT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
