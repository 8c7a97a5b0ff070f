"""What calls raise.

Rules:
- Everything that this package raises on its own account is a KVBlockError; its class follows the
  gRPC status code, its `reason` the server's ErrorReason.
- A call that the server refused for a reason has changed nothing. One whose answer was lost may
  have been carried out: its fate is unknown, as it is when the server fails or somebody on the way
  answers. `fate_unknown` tells which it is. The same call with the same `request_id` finds out.
- Bad arguments found here and those found by the server raise the same class with the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from grpc import StatusCode

_SAID_AT_ANY_POINT = frozenset(
    {
        StatusCode.CANCELLED,
        StatusCode.UNKNOWN,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.ABORTED,
        StatusCode.INTERNAL,
        StatusCode.DATA_LOSS,
    }
)
"""What gRPC, a proxy or a server that has a bug may answer without a reason, before the call was
carried out or after it: RESOURCE_EXHAUSTED is also what becomes of an answer that is too long."""


class Then(Enum):
    """What to do after an error: the server says it with each of its own."""

    REPEAT = "repeat"
    """Make the same call again, with the same request_id; not before `retry_after`."""
    RESUME = "resume"
    """Attach again with the lease's epoch: the lease goes on."""
    LEASE_LOST = "lease_lost"
    """Use nothing that the engine held, and attach anew."""
    GIVE_UP = "give_up"
    """A repeat cannot help: the request or its caller is wrong, or somebody has to decide."""


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
    belong to the reason; `violations` name the fields that are wrong. `retry_after` is the number
    of seconds after which the server wants to be tried again, None when it did not say. `then` is
    what to do next, as the server said; where it said nothing, what the class stands for.
    """

    _then = Then.GIVE_UP

    def __init__(
        self,
        message: str,
        *,
        reason: ErrorReason | None = None,
        code: StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
        then: Then | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after = retry_after
        self.then = self._then if then is None else then

    @property
    def message(self) -> str:
        """The text."""
        return str(self)

    @property
    def fate_unknown(self) -> bool:
        """Whether the call may have been carried out all the same."""
        return self.reason is None and self.code in _SAID_AT_ANY_POINT


class InvalidArgumentError(KVBlockError, ValueError):
    """An argument can never be right, or asks for more than a limit permits."""


class NotFoundError(KVBlockError):
    """The pool, the engine or the sequence does not exist."""


class AlreadyExistsError(KVBlockError):
    """What was to be created is there already."""


class FailedPreconditionError(KVBlockError):
    """The server's state does not permit this call."""


class MemoryUnusableError(FailedPreconditionError):
    """The memory of a pool cannot be had: by the server, or by this process that would map it."""


class LeaseLostError(FailedPreconditionError):
    """The lease has ended without a detach: what the engine held under it is no longer its own.

    It ran out, another client took it over, an operator ended it, or the server has lost its state.
    """

    _then = Then.LEASE_LOST


class SessionReplacedError(LeaseLostError):
    """Another stream has resumed the session's lease (reason SESSION_REPLACED).

    The lease goes on, and its blocks are those of whoever has that stream: this session has no
    part in them any more. Who attaches anew, as after a lost lease, finds the name taken.
    """

    _then = Then.GIVE_UP


class UnavailableError(KVBlockError):
    """Until the timeout no server answered: none was there, or it dropped calls, or shut down."""

    _then = Then.REPEAT

    @property
    def fate_unknown(self) -> bool:
        """Whether the call may have been carried out all the same."""
        return self.reason in (None, ErrorReason.JOURNAL_UNWRITABLE)


class UnauthenticatedError(KVBlockError):
    """The server asks who is calling; no credentials were shown, or none that it knows."""


class PermissionDeniedError(KVBlockError):
    """The server knows who is calling, and that may not do this."""


class RateLimitedError(KVBlockError):
    """More calls than the caller may make (reason RATE_LIMITED); nothing was changed.

    The next one is permitted in `retry_after` seconds.
    """


class DeadlineExceededError(KVBlockError):
    """No answer came in time; whether the call was carried out is unknown."""

    fate_unknown = True


class ClosedError(KVBlockError):
    """The client or the session is closed, or the session is not attached yet."""


class UsageError(KVBlockError, RuntimeError):
    """The program uses the client in a way that can never work; nothing was sent.

    It was made in another process or event loop, is in a call already, or cannot work with gevent,
    eventlet or trio in the way they are used.
    """


class UnansweredError(KVBlockError):
    """A step of the session was not answered; `recover` answers it, then the session goes on."""


class ErrorReason(Enum):
    """Why a call failed; each is declared here with its number, status code and exception."""

    _value_: int
    code: StatusCode | None
    """The status code that the server sends with it."""
    error: type[KVBlockError]
    """What a call raises that failed for it."""

    def __new__(
        cls, number: int, code: StatusCode | None, error: type[KVBlockError]
    ) -> ErrorReason:
        """Declare one."""
        reason = object.__new__(cls)
        reason._value_, reason.code, reason.error = number, code, error
        return reason

    UNSPECIFIED = 0, None, KVBlockError
    """A reason that this client does not know."""
    INVALID_FIELD = 1, StatusCode.INVALID_ARGUMENT, InvalidArgumentError
    """A field holds a value that is never legal."""
    REQUEST_LIMIT = 2, StatusCode.INVALID_ARGUMENT, InvalidArgumentError
    """One request asks for more than a configured limit permits."""
    MALFORMED_MESSAGE = 3, StatusCode.INVALID_ARGUMENT, InvalidArgumentError
    """The bytes are not a message of the method's request type."""
    POOL_NOT_FOUND = 4, StatusCode.NOT_FOUND, NotFoundError
    """The server hosts no pool of that name."""
    SEQUENCE_NOT_FOUND = 5, StatusCode.NOT_FOUND, NotFoundError
    """The engine holds no sequence of that id."""
    STATE_LIMIT = 6, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """The server holds as many things of a kind as a configured limit permits."""
    ENGINE_ATTACHED = 7, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """A lease is in the way: another client's under this engine name, or that of an engine which
    is to be reclaimed."""
    SESSION_STATE = 8, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """A session message came at the wrong time."""
    STEP_ID = 9, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """A step_id is neither the next one nor a re-sent last one."""
    DRAINING = 10, StatusCode.UNAVAILABLE, UnavailableError
    """The server is shutting down and takes no new work."""
    STALE_EPOCH = 11, StatusCode.FAILED_PRECONDITION, LeaseLostError
    """The call's epoch is not that of the engine's lease."""
    ID_REUSED = 12, StatusCode.INVALID_ARGUMENT, InvalidArgumentError
    """A request_id or step_id was used before with other content."""
    JOURNAL_UNWRITABLE = 13, StatusCode.UNAVAILABLE, UnavailableError
    """The server cannot write its journal; whether the call was carried out is unknown."""
    BLOCK_NOT_HELD = 14, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """A step releases a block that is not an acquired block of its engine."""
    GEOMETRY_MISMATCH = 15, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """The pool is not what the attach expects."""
    POOL_EXISTS = 20, StatusCode.ALREADY_EXISTS, AlreadyExistsError
    """The server hosts a pool of that name."""
    POOL_HELD = 21, StatusCode.FAILED_PRECONDITION, FailedPreconditionError
    """The pool cannot be deleted while it is in use."""
    ENGINE_NOT_FOUND = 22, StatusCode.NOT_FOUND, NotFoundError
    """The engine has neither a block nor a lease in the pool."""
    MEMORY_UNUSABLE = 23, StatusCode.FAILED_PRECONDITION, MemoryUnusableError
    """The memory of a new pool cannot be had."""
    UNAUTHENTICATED = 30, StatusCode.UNAUTHENTICATED, UnauthenticatedError
    """No credentials were shown, or none that the server knows."""
    PERMISSION_DENIED = 31, StatusCode.PERMISSION_DENIED, PermissionDeniedError
    """The caller is known and may not do this."""
    RATE_LIMITED = 32, StatusCode.RESOURCE_EXHAUSTED, RateLimitedError
    """The caller has made as many calls as its identity may make for now."""
    SLOW_READER = 33, StatusCode.ABORTED, KVBlockError
    """The session's answers were not read, and the server has cut it off."""
    SESSION_REPLACED = 34, StatusCode.ABORTED, SessionReplacedError
    """The session's lease goes on in another stream."""
