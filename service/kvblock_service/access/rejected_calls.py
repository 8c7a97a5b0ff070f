"""Calls that were rejected: counted for the metrics, and logged, without what was shown.

Rules:
- Every failed login, denied permission and call beyond a limit is counted, and logged as
  `event_counter` does.
- A text that comes from a caller is logged only once it has been found to be a name.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum

from kvblock_service.event_counter import EventCounter

_log = logging.getLogger(__name__)


class LoginFailure(Enum):
    """Why a caller is unknown."""

    NO_CREDENTIALS = "no credentials were shown"
    MALFORMED = "the authorization metadata is not a single `Bearer TOKEN`"
    UNKNOWN_TOKEN = "the token is not known"
    UNKNOWN_CERTIFICATE = "the certificate's names are not known"
    WITHDRAWN = "the credentials of this session are not known any more"


class Denial(Enum):
    """Why a caller who is known may not do what it asks for."""

    ENGINE = "the engine is another's"
    POOL = "the pool is another's"
    ADMIN = "the method is for admins"


class Limit(Enum):
    """Which limit has rejected a call."""

    CALLS = "concurrent_calls_max is reached"
    REQUEST = "a request did not arrive within request_seconds"


class RejectedCalls:
    """The rejected calls of a server since its start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.logins = EventCounter(_log, "login failed", LoginFailure, clock)
        self.denials = EventCounter(_log, "permission denied", Denial, clock)
        self.limits = EventCounter(_log, "call rejected", Limit, clock)
