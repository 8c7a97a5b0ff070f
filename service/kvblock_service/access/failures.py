"""Failed logins: counted for the metrics, and logged, without what was shown.

Rules:
- Every failure is counted. At most one line a second is logged for each reason; it says how many
  there were since the last one, so that a flood of them does not fill a disk.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 1.0


class LoginFailure(Enum):
    """Why a caller was not let in."""

    NO_CREDENTIALS = "no credentials were shown"
    MALFORMED = "the authorization metadata is no single `Bearer TOKEN`"
    UNKNOWN_TOKEN = "the token is not known"
    UNKNOWN_CERTIFICATE = "the certificate's names are not known"
    WITHDRAWN = "the credentials of this session are not known any more"


class LoginFailures:
    """How many there were since the server started, by reason."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = dict.fromkeys(LoginFailure, 0)
        self._clock = clock
        self._logged: dict[LoginFailure, tuple[float, int]] = {}

    def count(self, failure: LoginFailure, peer: str) -> None:
        """One more; `peer` is where the call came from."""
        total = self.counts[failure] = self.counts[failure] + 1
        now = self._clock()
        at, before = self._logged.get(failure, (-_SECONDS_BETWEEN_LINES, 0))
        if now - at >= _SECONDS_BETWEEN_LINES:
            self._logged[failure] = (now, total)
            _log.warning(
                "login failed",
                extra={"problem": failure.value, "peer": peer, "failures": total - before},
            )
