"""How fast an identity may call: as many calls a second as it has, and no more than that at once.

Rules:
- Time is handed in, in seconds of a clock that does not go back.
- A call that is refused uses nothing up. One that is held back has its place: what comes later
  waits longer.
"""

_ROUNDING = 1e-9


class Rate:
    """`per_second` calls; what was not used for a second is kept, and at least one call is."""

    def __init__(self, per_second: float, now: float) -> None:
        self.per_second = per_second
        self._most = max(1.0, per_second)
        self._left = self._most
        self._at = now

    def refused_for(self, now: float) -> float:
        """0 when a call may go ahead now, and counts; else the seconds after which one may."""
        self._fill(now)
        if self._left < 1 - _ROUNDING:
            return (1 - self._left) / self.per_second
        self._left -= 1
        return 0.0

    def held_for(self, now: float) -> float:
        """How many seconds a call that counts in any case has to wait."""
        self._fill(now)
        self._left -= 1
        return max(0.0, -self._left / self.per_second)

    def _fill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self.per_second)
        self._at = now
