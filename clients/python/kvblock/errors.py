"""What calls raise.

Rules:
- Everything that this package raises on its own account is a KVBlockError; its class follows the
  gRPC status code, its `reason` the server's ErrorReason.
- A call that ended in an error has changed nothing, with two exceptions where the answer is lost:
  DeadlineExceededError, and UnavailableError without a reason. Then its fate is unknown.
- Bad arguments found here and those found by the server raise the same class with the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import grpc


class ErrorReason(Enum):
    """Why a call failed."""

    UNSPECIFIED = 0
    """A reason that this client does not know."""
    INVALID_FIELD = 1
    """A field holds a value that is never legal."""
    REQUEST_LIMIT = 2
    """One request asks for more than a configured limit permits."""
    MALFORMED_MESSAGE = 3
    """The bytes are no message of the method's request type."""
    POOL_NOT_FOUND = 4
    """The server hosts no pool of that name."""
    SEQUENCE_NOT_FOUND = 5
    """The engine holds no sequence of that id."""
    STATE_LIMIT = 6
    """The server holds as many things of a kind as a configured limit permits."""
    ENGINE_ATTACHED = 7
    """Another live session is attached under this engine name."""
    SESSION_STATE = 8
    """A session message came at the wrong time."""
    STEP_ID = 9
    """A step_id is neither the next one nor a re-sent last one."""
    DRAINING = 10
    """The server is shutting down and takes no new work."""
    UNAUTHENTICATED = 30
    """No credentials were shown, or none that the server knows."""
    PERMISSION_DENIED = 31
    """The caller is known and may not do this."""
    RATE_LIMITED = 32
    """The caller has made as many calls as its identity may make for now."""
    SLOW_READER = 33
    """The session's answers were not read, and the server has cut it off."""


class FieldViolation(NamedTuple):
    """One field of a request that cannot be."""

    field: str
    """Its path in the request."""
    description: str
    """What is wrong with it."""


class KVBlockError(Exception):
    """A call failed; the text says what to do.

    `reason` is None when the error does not come from a kvblock server, and `code` is None when no
    gRPC status was involved. `metadata` holds the facts (field, value, limit, pool, ...) that
    belong to the reason; `violations` name the fields that are wrong.
    """

    reason: ErrorReason | None
    code: grpc.StatusCode | None
    metadata: dict[str, str]
    violations: tuple[FieldViolation, ...]

    def __init__(
        self,
        message: str,
        *,
        reason: ErrorReason | None = None,
        code: grpc.StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.metadata = dict(metadata or {})
        self.violations = violations

    @property
    def message(self) -> str:
        """The text."""
        return str(self)


class InvalidArgumentError(KVBlockError, ValueError):
    """An argument can never be right, or asks for more than a limit permits."""


class NotFoundError(KVBlockError):
    """The pool or the sequence does not exist."""


class FailedPreconditionError(KVBlockError):
    """The server's state does not permit this call."""


class UnavailableError(KVBlockError):
    """No server answers, or it is shutting down (then `reason` is DRAINING).

    `retry_after` is the number of seconds after which the server wants to be tried again, None when
    it did not say.
    """

    retry_after: float | None = None


class UnauthenticatedError(KVBlockError):
    """The server asks who is calling; no credentials were shown, or none that it knows."""


class PermissionDeniedError(KVBlockError):
    """The server knows who is calling, and that may not do this."""


class RateLimitedError(KVBlockError):
    """More calls than the caller may make (reason RATE_LIMITED); nothing was changed.

    `retry_after` is the number of seconds after which the next call is permitted, None when the
    server did not say.
    """

    retry_after: float | None = None


class DeadlineExceededError(KVBlockError):
    """No answer came in time; whether the call was carried out is unknown."""


class ClosedError(KVBlockError):
    """The client or the session is closed, or the session is not attached yet."""
