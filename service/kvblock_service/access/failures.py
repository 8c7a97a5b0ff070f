"""Who was turned away: counted for the metrics, and logged, without what was shown.

Rules:
- Every failed login and every denied permission is counted. At most one line a second is logged
  for each reason; it says how many there were since the last one, so that a flood of them does not
  fill a disk.
- A text that comes from a caller is told only once it has been found to be a name.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 1.0


class LoginFailure(Enum):
    """Why nobody knows a caller."""

    NO_CREDENTIALS = "no credentials were shown"
    MALFORMED = "the authorization metadata is no single `Bearer TOKEN`"
    UNKNOWN_TOKEN = "the token is not known"
    UNKNOWN_CERTIFICATE = "the certificate's names are not known"
    WITHDRAWN = "the credentials of this session are not known any more"


class Denial(Enum):
    """Why a caller who is known may not do what it asks for."""

    ENGINE = "the engine is another's"
    POOL = "the pool is another's"
    ADMIN = "the method is for admins"


_KindT = TypeVar("_KindT", bound=Enum)


class _Tally(Generic[_KindT]):
    """How many there were since the server started, by reason."""

    def __init__(self, event: str, kinds: type[_KindT], clock: Callable[[], float]) -> None:
        self.counts = dict.fromkeys(kinds, 0)
        self._event = event
        self._clock = clock
        self._logged: dict[_KindT, tuple[float, int]] = {}

    def _count(self, kind: _KindT, **told: str) -> None:
        total = self.counts[kind] = self.counts[kind] + 1
        now = self._clock()
        at, before = self._logged.get(kind, (-_SECONDS_BETWEEN_LINES, 0))
        if now - at >= _SECONDS_BETWEEN_LINES:
            self._logged[kind] = (now, total)
            _log.warning(
                self._event, extra={"problem": kind.value, **told, "failures": total - before}
            )


class LoginFailures(_Tally[LoginFailure]):
    """Failed logins. `counts` is how many there were since the server started, by reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("login failed", LoginFailure, clock)

    def count(self, failure: LoginFailure, peer: str) -> None:
        """One more; `peer` is where the call came from."""
        self._count(failure, peer=peer)


class Denials(_Tally[Denial]):
    """Denied permissions. `counts` is how many there were since the server started, by reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("permission denied", Denial, clock)

    def count(self, denial: Denial, peer: str, identity: str, what: str) -> None:
        """One more; `identity` wanted to do `what`, in the words of the error that it got."""
        self._count(denial, peer=peer, identity=identity, what=what)


class TurnedAway(NamedTuple):
    """Everybody who was turned away."""

    logins: LoginFailures
    denials: Denials

    @classmethod
    def nobody(cls) -> "TurnedAway":
        """As it is when a server starts."""
        return cls(LoginFailures(), Denials())
