"""Logs when the process has no file descriptor left, so that no connection can be accepted.

Rules:
- gRPC tries again by itself when it cannot accept, and logs nothing; so this looks once a second
  whether a descriptor can be had. Each look costs two system calls.
- It is logged when it begins, once a minute while it lasts, and when it ends. Looks that found no
  descriptor are counted.
"""

import asyncio
import errno
import logging
import os
import resource

LOOK_SECONDS = 1.0
LOOKS_BETWEEN_LINES = 60
SPARE = 64
"""What a server needs beside its connections: its journal, listeners, and what Python has open."""

_log = logging.getLogger(__name__)


def limit() -> int:
    """How many descriptors the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def raise_limit(wanted: int) -> int:
    """Raise the soft limit as far as the hard one permits and `wanted` asks; answers what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
        return best
    return soft


class OpenFiles:
    """Looks for a free descriptor. `shortages` is how many looks found none."""

    def __init__(self) -> None:
        self.shortages = 0
        self._in_a_row = 0

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """One look: it opens a file, and closes it."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._short(error)
        else:
            if self._in_a_row:
                _log.warning("connections are accepted again", extra={"seconds": self._in_a_row})
            self._in_a_row = 0

    def _short(self, error: OSError) -> None:
        self.shortages += 1
        if self._in_a_row % LOOKS_BETWEEN_LINES == 0:
            _log.error(
                "no file descriptor is left, so no connection can be accepted; raise the limit of"
                " open files (ulimit -n, LimitNOFILE=) or lower connections_max",
                extra={"problem": error.strerror, "limit": limit()},
            )
        self._in_a_row += 1
