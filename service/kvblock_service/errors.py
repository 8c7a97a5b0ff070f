"""What can go wrong with a call: one declaration for each ErrorReason of the proto.

Rules:
- How one is declared is said in `call_error`; each says in `then` what its caller does next.
- The classes stand in the order of the reasons' numbers, but for those of `pool_errors`.
- A text says what the caller can do.
- Whoever raises one has changed nothing.
"""

from dataclasses import dataclass

from kvblock_service.call_error import CallError as CallError
from kvblock_service.call_error import Then, aside, shown
from kvblock_service.pool_errors import GeometryMismatch as GeometryMismatch
from kvblock_service.pool_errors import MemoryUnusable as MemoryUnusable
from kvblock_service.pool_errors import PoolExists as PoolExists
from kvblock_service.pool_errors import PoolHeld as PoolHeld
from kvblock_service.pool_errors import PoolNotFound as PoolNotFound


@dataclass(eq=False)
class InvalidField(CallError):
    """A field holds a value that is never legal; `problem` says what is."""

    reason, code, then = "INVALID_FIELD", "INVALID_ARGUMENT", Then.GIVE_UP
    text = "{field}: {value} {problem}"
    field: str
    value: object
    problem: str = aside()

    def __post_init__(self) -> None:
        self.value = shown(self.value)
        super().__post_init__()


@dataclass(eq=False)
class RequestLimit(CallError):
    """A request asks for more than the configured limit of that name."""

    reason, code, then = "REQUEST_LIMIT", "INVALID_ARGUMENT", Then.GIVE_UP
    text = "{field}: {value} is more than {limit} = {max}"
    field: str
    value: float
    limit: str
    max: float


@dataclass(eq=False)
class MalformedMessage(CallError):
    """The bytes are not a message of the method's request type."""

    reason, code, then = "MALFORMED_MESSAGE", "INVALID_ARGUMENT", Then.GIVE_UP
    text = "the request's bytes are not a valid {message_type}"
    message_type: str


@dataclass(eq=False)
class SequenceNotFound(CallError):
    """The engine holds no sequence of that id."""

    reason, code, then = "SEQUENCE_NOT_FOUND", "NOT_FOUND", Then.GIVE_UP
    text = "engine {engine!r} has no sequence {sequence_id} in pool {pool!r}"
    pool: str
    engine: str
    sequence_id: int


@dataclass(eq=False)
class StateLimit(CallError):
    """The server holds as many things of a kind as the limit of that name permits."""

    reason, code, then, of_state = "STATE_LIMIT", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = "{limit} = {max} is reached; free something, or raise it in the server's configuration"
    limit: str
    max: int
    pool: str | None = None
    engine: str | None = None


@dataclass(eq=False)
class EngineAttached(CallError):
    """A lease is in the way: another client's, or the engine's own; `expires_in` is in seconds."""

    reason, code, then, of_state = "ENGINE_ATTACHED", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = "engine {engine!r} in pool {pool!r} {problem}"
    pool: str
    engine: str
    expires_in: float | None = aside()
    problem: str = aside(
        "is attached by another client; choose another engine name, wait until that lease ends, or"
        " attach with takeover"
    )

    @property
    def retry_after(self) -> float | None:
        """When to try again: when the lease has expired, unless it is renewed."""
        return self.expires_in

    @classmethod
    def alive(
        cls, pool: str, engine: str, since_heartbeat: float, expires_in: float
    ) -> "EngineAttached":
        """The engine that is to be reclaimed has a lease that has not expired; both in seconds."""
        return cls(
            pool,
            engine,
            expires_in,
            f"is alive: its last heartbeat was {since_heartbeat:.1f} s ago, and its lease expires"
            f" in {expires_in:.1f} s; to take its blocks all the same, use force",
        )


@dataclass(eq=False)
class SessionState(CallError):
    """A session message, of the kind `message`, at the wrong time, or not in time (`late`)."""

    reason, code, then = "SESSION_STATE", "FAILED_PRECONDITION", Then.GIVE_UP
    text = "{message}: {problem}"
    message: str
    problem: str = aside()

    @classmethod
    def late(cls, message: str, problem: str) -> "SessionState":
        """The message did not come in time: nothing was carried out, and another stream may try."""
        error = cls(message, problem)
        error.then = Then.REPEAT
        return error


@dataclass(eq=False)
class StepId(CallError):
    """A step_id that is neither the next one nor a re-sent last one."""

    reason, code, then, of_state = "STEP_ID", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = "step_id: {step_id} is out of order; the next one is {expected}"
    step_id: int
    expected: int
    field: str = aside("step.step_id")


@dataclass(eq=False)
class Draining(CallError):
    """The server is shutting down and takes no new work."""

    reason, code, then = "DRAINING", "UNAVAILABLE", Then.REPEAT
    text = "the server is shutting down; try again when it is back"
    retry_after: float = aside()


@dataclass(eq=False)
class StaleEpoch(CallError):
    """The call's epoch is not that of the engine's lease; `current` is, 0 without a lease."""

    reason, code, then, of_state = "STALE_EPOCH", "FAILED_PRECONDITION", Then.LEASE_LOST, True
    text = "engine {engine!r} in pool {pool!r} {problem}"
    pool: str
    engine: str
    epoch: int
    current: int
    problem: str = aside("")

    def __post_init__(self) -> None:
        if not self.epoch:
            # Who named no epoch had no lease to lose.
            self.then = Then.GIVE_UP
        if self.epoch:
            now = "has another lease now" if self.current else "has no lease"
            self.problem = f"{now}; epoch {self.epoch} is stale, attach again"
        elif self.current:
            self.problem = "is attached, and the call has no epoch; set `epoch` to the lease's"
        else:
            self.problem = "has ended since this request_id was used; what it was granted is gone"
        super().__post_init__()


@dataclass(eq=False)
class IdentityReused(CallError):
    """A request_id or step_id came before with other content."""

    reason, code, then, of_state = "ID_REUSED", "INVALID_ARGUMENT", Then.GIVE_UP, True
    text = "{field} was used before with other content; choose a new one for each request"
    field: str
    pool: str
    engine: str


@dataclass(eq=False)
class JournalUnwritable(CallError):
    """The journal cannot be written, so nothing can be carried out that has to be persisted."""

    reason, code, then = "JOURNAL_UNWRITABLE", "UNAVAILABLE", Then.REPEAT
    text = (
        "the server cannot write its journal ({problem}); send the call again with the same"
        " request_id or step_id"
    )
    problem: str = aside()
    retry_after: float = aside()


@dataclass(eq=False)
class BlockNotHeld(CallError):
    """A block to release is not an acquired block of the engine; `place` says where it is."""

    reason, code, then, of_state = "BLOCK_NOT_HELD", "FAILED_PRECONDITION", Then.GIVE_UP, True
    text = (
        "engine {engine!r} cannot release block {block_number} of pool {pool!r}: the block {place}"
    )
    pool: str
    engine: str
    block_number: int
    place: str
    field: str = aside("step.release_block_numbers")


@dataclass(eq=False)
class EngineNotFound(CallError):
    """The engine has neither a block nor a lease in the pool."""

    reason, code, then, of_state = "ENGINE_NOT_FOUND", "NOT_FOUND", Then.GIVE_UP, True
    text = "engine {engine!r} has neither a block nor a lease in pool {pool!r}"
    pool: str
    engine: str


@dataclass(eq=False)
class Unauthenticated(CallError):
    """The caller showed no credentials, or unknown ones; `problem` never holds them."""

    reason, code, then = "UNAUTHENTICATED", "UNAUTHENTICATED", Then.GIVE_UP
    text = (
        "{problem}; show a token (metadata `authorization: Bearer TOKEN`) or a client certificate"
        " that is in the server's access file"
    )
    problem: str


@dataclass(eq=False)
class PermissionDenied(CallError):
    """The caller is known, and may not do what it asks for."""

    reason, code, then = "PERMISSION_DENIED", "PERMISSION_DENIED", Then.GIVE_UP
    text = "identity {identity!r} may not {what}; the server's access file says what it may do"
    identity: str
    what: str


@dataclass(eq=False)
class RateLimited(CallError):
    """The caller's identity has used up its calls: `max` a second."""

    reason, code, then = "RATE_LIMITED", "RESOURCE_EXHAUSTED", Then.REPEAT
    text = "identity {identity!r} makes more calls than calls_per_second = {max}"
    identity: str
    max: str
    retry_after: float = aside()
    limit: str = "calls_per_second"


@dataclass(eq=False)
class SlowReader(CallError):
    """A session's client has left answers unread for longer than `max` seconds."""

    reason, code, then = "SLOW_READER", "ABORTED", Then.RESUME
    text = "the session's answers were not read for slow_reader_seconds = {max}"
    max: str
    limit: str = "slow_reader_seconds"


@dataclass(eq=False)
class SessionReplaced(CallError):
    """A session's lease was resumed on another stream, and is that one's now."""

    reason, code, then, of_state = "SESSION_REPLACED", "ABORTED", Then.GIVE_UP, True
    text = (
        "the lease of engine {engine!r} in pool {pool!r} goes on in another stream; leave it to it"
    )
    pool: str
    engine: str


ERRORS = tuple(CallError.__subclasses__())
"""Every class above, in the order of the numbers."""
