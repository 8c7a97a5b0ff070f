"""How often and when a call that found the server unavailable is made again.

Rules:
- What is tried again is what the error's `then` says: REPEAT, or RESUME in a session. That is safe:
  a call that changes something has a request_id or a step_id, and keeps it through all tries.
- The delays grow from try to try up to a limit, and each is a random part of that (full jitter), so
  that clients which lost their server together do not come back together. A server that says when
  it wants to be tried again is not tried sooner.
- All tries happen within the caller's timeout. Without one they go on until the client is closed
  or, under a lease, until the lease is lost.
"""

from __future__ import annotations

import random
from time import monotonic

from kvblock.errors import KVBlockError, Then

FIRST_DELAY_MAX = 0.02
"""Seconds; the limit doubles with each try."""
DELAY_MAX = 0.25
"""Seconds; as far as it grows. While there is no connection a try costs the server nothing, and
what it may come late by is added to the channel's own wait."""

# The interpreter's own generator belongs to the application: it may be seeded, and engines that are
# seeded alike would wait alike.
_random = random.SystemRandom()


def backoff(tries: int) -> float:
    """Seconds to wait after so many tries in a row that failed, the first one being 1."""
    limit = min(DELAY_MAX, FIRST_DELAY_MAX * 2.0 ** min(tries - 1, 30))
    return _random.uniform(0.0, limit)


def may_repeat(failure: KVBlockError) -> bool:
    """Whether another try can help."""
    return failure.then is Then.REPEAT or failure.then is Then.RESUME


class Retries:
    """Those of one call that began at `started` (monotonic) and may take `timeout` seconds."""

    def __init__(self, started: float, timeout: float | None, *, enabled: bool = True) -> None:
        self._ends = None if timeout is None else started + timeout
        self._enabled = enabled
        self._count = 0
        self._failure: KVBlockError | None = None

    def remaining(self) -> float | None:
        """Seconds that are left for the next try, None without a limit."""
        return None if self._ends is None else max(0.001, self._ends - monotonic())

    def delay(self, failure: KVBlockError) -> float:
        """Seconds to wait before the next try, after one that failed.

        Raises:
            KVBlockError: that of a try, if another one cannot help, or has no time left.

        """
        if not may_repeat(failure):
            raise failure
        self._count += 1
        # A failure that leaves open whether the call was carried out is the one to tell of.
        if self._failure is None or not self._failure.fate_unknown:
            self._failure = failure
        delay = (failure.retry_after or 0.0) + backoff(self._count)
        if not self._enabled or (self._ends is not None and monotonic() + delay >= self._ends):
            raise self._failure
        return delay
