"""What can go wrong with a call, as exceptions that know nothing of the wire.

Rules:
- Each Reason has the name of its `ErrorReason` in the proto, and an exception class that alone
  raises it.
- The text says what the caller can do; `metadata` holds the facts it names.
- Whoever raises one has changed nothing.
"""

from enum import Enum
from typing import ClassVar, TypeVar

_ErrorT = TypeVar("_ErrorT", bound="CallError")


class Reason(Enum):
    """The proto's ErrorReason, without its prefix."""

    INVALID_FIELD = 1
    REQUEST_LIMIT = 2
    MALFORMED_MESSAGE = 3
    POOL_NOT_FOUND = 4
    SEQUENCE_NOT_FOUND = 5
    STATE_LIMIT = 6
    ENGINE_ATTACHED = 7
    SESSION_STATE = 8
    STEP_ID = 9
    DRAINING = 10
    STALE_EPOCH = 11
    ID_REUSED = 12
    JOURNAL_UNWRITABLE = 13
    POOL_EXISTS = 20
    POOL_HELD = 21
    ENGINE_NOT_FOUND = 22
    UNAUTHENTICATED = 30
    PERMISSION_DENIED = 31
    RATE_LIMITED = 32
    SLOW_READER = 33


class CallError(Exception):
    """A call that cannot be carried out.

    `metadata` goes into the answer's ErrorInfo; `field` names the field of a BadRequest;
    `retry_after` (seconds) goes into a RetryInfo. `of_state`: it follows from what the server
    holds, so it is told when that is in the journal.
    """

    reason: ClassVar[Reason]
    field: str | None = None
    retry_after: float | None = None
    of_state: bool = False

    def __init__(self, message: str, /, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def of_journal(self: _ErrorT) -> _ErrorT:
        """The same error, where all that it follows from is in the journal already."""
        self.of_state = False
        return self


class InvalidField(CallError):
    """A field holds a value that is never legal; `problem` says what is."""

    reason = Reason.INVALID_FIELD

    def __init__(self, field: str, value: object, problem: str) -> None:
        shown = repr(value) if isinstance(value, str) else str(value)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        super().__init__(f"{field}: {shown} {problem}", field=field, value=shown)
        self.field = field


class RequestLimit(CallError):
    """A request asks for more than the configured limit of that name."""

    reason = Reason.REQUEST_LIMIT

    def __init__(self, field: str, value: float, limit: str, maximum: float) -> None:
        super().__init__(
            f"{field}: {value} is more than {limit} = {maximum}",
            field=field,
            value=value,
            limit=limit,
            max=maximum,
        )
        self.field = field


class MalformedMessage(CallError):
    """The bytes are no message of the method's request type."""

    reason = Reason.MALFORMED_MESSAGE

    def __init__(self, message_type: str) -> None:
        super().__init__(f"the request's bytes are no {message_type}", message_type=message_type)


class PoolNotFound(CallError):
    """The server hosts no pool of that name."""

    reason = Reason.POOL_NOT_FOUND
    of_state = True

    def __init__(self, pool: str, known: list[str]) -> None:
        names = ", ".join(known[:20]) or "none"
        super().__init__(f"no pool {pool!r} here; this server hosts: {names}", pool=pool)


class PoolExists(CallError):
    """The server hosts a pool of that name."""

    reason = Reason.POOL_EXISTS
    of_state = True

    def __init__(self, pool: str) -> None:
        super().__init__(
            f"there is a pool {pool!r} already; choose another name, or delete that one first",
            pool=pool,
        )


class PoolHeld(CallError):
    """A pool that is in use cannot be deleted."""

    reason = Reason.POOL_HELD
    of_state = True

    def __init__(self, pool: str, held: int, quarantined: int, leases: int, waiting: int) -> None:
        super().__init__(
            f"pool {pool!r} is in use: {held} blocks held, {quarantined} in quarantine,"
            f" {leases} engines with a lease, {waiting} calls that wait; end or reclaim its engines"
            " and let the quarantine end first",
            pool=pool,
            held_blocks=held,
            quarantined_blocks=quarantined,
            leases=leases,
            waiting=waiting,
        )


class EngineNotFound(CallError):
    """The engine has neither a sequence nor a lease in the pool."""

    reason = Reason.ENGINE_NOT_FOUND
    of_state = True

    def __init__(self, pool: str, engine: str) -> None:
        super().__init__(
            f"engine {engine!r} has neither a sequence nor a lease in pool {pool!r}",
            pool=pool,
            engine=engine,
        )


class SequenceNotFound(CallError):
    """The engine holds no sequence of that id."""

    reason = Reason.SEQUENCE_NOT_FOUND

    def __init__(self, pool: str, engine: str, sequence_id: int) -> None:
        super().__init__(
            f"engine {engine!r} has no sequence {sequence_id} in pool {pool!r}",
            pool=pool,
            engine=engine,
            sequence_id=sequence_id,
        )


class StateLimit(CallError):
    """The server holds as many things of a kind as the limit of that name permits."""

    reason = Reason.STATE_LIMIT
    of_state = True

    def __init__(self, limit: str, maximum: int, **where: object) -> None:
        super().__init__(
            f"{limit} = {maximum} is reached; free something, or raise it in the server's"
            " configuration",
            limit=limit,
            max=maximum,
            **where,
        )


class EngineAttached(CallError):
    """A lease is in the way: another client's, or the engine's own; `expires_in` is in seconds."""

    reason = Reason.ENGINE_ATTACHED
    of_state = True

    def __init__(self, pool: str, engine: str, expires_in: float) -> None:
        super().__init__(
            f"another client has a lease as engine {engine!r} in pool {pool!r}; choose another"
            " engine name, wait until the lease ends, or attach with takeover",
            pool=pool,
            engine=engine,
        )
        self.retry_after = expires_in

    @classmethod
    def elsewhere(cls, pool: str, engine: str) -> "EngineAttached":
        """The lease of a session was resumed on another stream, and is that one's now."""
        error = cls(pool, engine, 0)
        error.message = f"the lease of engine {engine!r} in pool {pool!r} goes on in another stream"
        error.retry_after = None
        return error

    @classmethod
    def alive(
        cls, pool: str, engine: str, since_heartbeat: float, expires_in: float
    ) -> "EngineAttached":
        """The engine that is to be reclaimed has a lease that has not run out."""
        error = cls(pool, engine, expires_in)
        error.message = (
            f"engine {engine!r} in pool {pool!r} is alive: its last heartbeat was"
            f" {since_heartbeat:.1f} s ago, and its lease lasts for {expires_in:.1f} s"
            " more; to take its blocks all the same, use force"
        )
        return error


class StaleEpoch(CallError):
    """The call's epoch is not that of the engine's lease; `current` is, 0 without a lease."""

    reason = Reason.STALE_EPOCH
    of_state = True

    def __init__(self, pool: str, engine: str, epoch: int, current: int) -> None:
        if not epoch and not current:
            problem = "has ended since this request_id was used; what it was granted is gone"
        elif not epoch:
            problem = "is attached, and the call names no epoch; name the lease's in `epoch`"
        elif current:
            problem = f"has another lease now; epoch {epoch} is over, attach anew"
        else:
            problem = f"has no lease; epoch {epoch} is over, attach anew"
        super().__init__(
            f"engine {engine!r} in pool {pool!r} {problem}",
            pool=pool,
            engine=engine,
            epoch=epoch,
            current=current,
        )


class IdentityReused(CallError):
    """A request_id or step_id came before with other content."""

    reason = Reason.ID_REUSED
    of_state = True

    def __init__(self, field: str, pool: str, engine: str) -> None:
        super().__init__(
            f"{field} was used before with other content; choose a new one for each request",
            pool=pool,
            engine=engine,
            field=field,
        )
        self.field = field


class JournalUnwritable(CallError):
    """The journal cannot be written, so that nothing can be carried out that has to be kept."""

    reason = Reason.JOURNAL_UNWRITABLE

    def __init__(self, problem: str, retry_after: float) -> None:
        super().__init__(
            f"the server cannot write its journal ({problem}); send the call again with the same"
            " request_id or step_id"
        )
        self.retry_after = retry_after


class SessionState(CallError):
    """A session message that does not belong here, or that did not come in time."""

    reason = Reason.SESSION_STATE

    def __init__(self, message: str, problem: str) -> None:
        super().__init__(f"{message}: {problem}", message=message)


class StepId(CallError):
    """A step_id that is neither the next one nor a re-sent last one."""

    reason = Reason.STEP_ID
    of_state = True

    def __init__(self, step_id: int, expected: int) -> None:
        super().__init__(
            f"step_id: {step_id} is out of order, the next one is {expected}",
            step_id=step_id,
            expected=expected,
        )
        self.field = "step.step_id"


class Draining(CallError):
    """The server is shutting down and takes no new work."""

    reason = Reason.DRAINING

    def __init__(self, retry_after: float) -> None:
        super().__init__("the server is shutting down; try again when it is back")
        self.retry_after = retry_after


class Unauthenticated(CallError):
    """The caller showed no credentials, or none that are known; `problem` never holds them."""

    reason = Reason.UNAUTHENTICATED

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; show a token (metadata `authorization: Bearer TOKEN`) or a client"
            " certificate that the server's access file knows",
            problem=problem,
        )


class PermissionDenied(CallError):
    """The caller is known, and may not do what it asks for."""

    reason = Reason.PERMISSION_DENIED

    def __init__(self, identity: str, what: str) -> None:
        super().__init__(
            f"identity {identity!r} may not {what}; the server's access file says what it may do",
            identity=identity,
            what=what,
        )


class RateLimited(CallError):
    """The caller's identity has used up its calls; `retry_after` is in seconds."""

    reason = Reason.RATE_LIMITED

    def __init__(self, identity: str, calls_per_second: float, retry_after: float) -> None:
        super().__init__(
            f"identity {identity!r} makes more calls than calls_per_second = {calls_per_second:g}",
            identity=identity,
            limit="calls_per_second",
            max=f"{calls_per_second:g}",
        )
        self.retry_after = retry_after


class SlowReader(CallError):
    """A session's client has left answers unread for longer than `slow_reader_seconds`."""

    reason = Reason.SLOW_READER

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the session's answers were not read for slow_reader_seconds = {seconds:g}",
            limit="slow_reader_seconds",
            max=f"{seconds:g}",
        )
