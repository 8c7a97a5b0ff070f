"""Who was turned away: counted for the metrics, and logged, without what was shown.

Rules:
- Every failed login and every denied permission is counted, and logged as `tally` does.
- A text that comes from a caller is told only once it has been found to be a name.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from kvblock_service.tally import Tally

_log = logging.getLogger(__name__)


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


class Limit(Enum):
    """Which limit has turned a call away."""

    CALLS = "concurrent_calls_max is reached"
    REQUEST = "a request did not arrive within request_seconds"


class LoginFailures(Tally[LoginFailure]):
    """Failed logins. `counts` is how many there were since the server started, by reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_log, "login failed", LoginFailure, clock)

    def count(self, failure: LoginFailure, peer: str) -> None:
        """One more; `peer` is where the call came from."""
        self.add(failure, peer=peer)


class Denials(Tally[Denial]):
    """Denied permissions. `counts` is how many there were since the server started, by reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_log, "permission denied", Denial, clock)

    def count(self, denial: Denial, peer: str, identity: str, what: str) -> None:
        """One more; `identity` wanted to do `what`, in the words of the error that it got."""
        self.add(denial, peer=peer, identity=identity, what=what)


class LimitsReached(Tally[Limit]):
    """Calls that a limit has ended. `counts` is how many there were since the server started."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_log, "call turned away", Limit, clock)

    def count(self, limit: Limit, peer: str) -> None:
        """One more; `peer` is where the call came from."""
        self.add(limit, peer=peer)


class TurnedAway(NamedTuple):
    """Everybody who was turned away."""

    logins: LoginFailures
    denials: Denials
    limits: LimitsReached

    @classmethod
    def nobody(cls) -> "TurnedAway":
        """As it is when a server starts."""
        return cls(LoginFailures(), Denials(), LimitsReached())
