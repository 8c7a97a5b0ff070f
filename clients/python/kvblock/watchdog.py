"""One deadline at a time, watched by a thread that sleeps nearly always.

Rules:
- Arming and disarming cost a few attribute stores: the thread is woken only when a deadline is
  nearer than the moment for which it sleeps. It wakes by itself, finds that the deadline has moved
  on, and sleeps again.
- `expired` runs in the thread, once for a deadline that passed while it was armed.
- The thread is a daemon and ends with `stop`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic


class Watchdog:
    """Calls `expired` when a deadline passes that nobody disarmed."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._deadline = math.inf
        self._wakes_at = math.inf
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def arm(self, timeout: float) -> None:
        """Expect a `disarm` within so many seconds."""
        deadline = self._deadline = monotonic() + timeout
        if deadline < self._wakes_at:
            self._wake()

    def disarm(self) -> None:
        """The awaited thing has happened."""
        self._deadline = math.inf

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._run, name="kvblock-watchdog", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                # In this order: whoever arms after the first line sees infinity and notifies,
                # whoever armed before it is seen by the second.
                self._wakes_at = math.inf
                deadline = self._wakes_at = self._deadline
                remaining = deadline - monotonic()
                if remaining > 0:
                    self._changed.wait(None if remaining == math.inf else remaining)
                elif self._deadline == deadline:
                    self._deadline = math.inf
                    self._expired()
