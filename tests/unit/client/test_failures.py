"""From the trailers of a failed call to the exception."""

import subprocess
import sys

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, DebugInfo, ErrorInfo
from google.rpc.status_pb2 import Status

from kvblock.errors import (
    DeadlineExceededError,
    ErrorReason,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    KVBlockError,
    LeaseLostError,
    MemoryUnusableError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SessionReplacedError,
    Then,
    UnauthenticatedError,
    UnavailableError,
)
from kvblock.failures import error_of_status

Trailers = tuple[tuple[str, str | bytes], ...]


def trailers(*details: Message) -> Trailers:
    packed = []
    for detail in details:
        one = Any()
        one.Pack(detail)
        packed.append(one)
    status = Status(code=3, message="ignored", details=packed)
    return (("other", "x"), ("grpc-status-details-bin", status.SerializeToString()))


def info(reason: str, domain: str = "kvblock.v1", **metadata: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=domain, metadata=metadata)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgumentError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPreconditionError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.CANCELLED, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.UNAUTHENTICATED, UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDeniedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, KVBlockError),
        (grpc.StatusCode.INTERNAL, KVBlockError),
        (grpc.StatusCode.UNIMPLEMENTED, KVBlockError),
    ],
)
def test_class_follows_the_code(code: grpc.StatusCode, kind: type[KVBlockError]) -> None:
    error = error_of_status(code, "text", (), "host:1")
    assert type(error) is kind
    assert (error.code, error.reason, error.metadata, error.violations) == (code, None, {}, ())


@pytest.mark.parametrize("reason", [r for r in ErrorReason if r is not ErrorReason.UNSPECIFIED])
def test_reason_and_facts(reason: ErrorReason) -> None:
    details = trailers(info(reason.name, pool="a", limit="engines_max"))
    error = error_of_status(grpc.StatusCode.FAILED_PRECONDITION, "say this", details, "host:1")
    assert error.reason is reason
    assert error.metadata == {"pool": "a", "limit": "engines_max"}
    assert (str(error), error.message) == ("say this", "say this")


def test_fields_that_are_wrong() -> None:
    bad = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field="num_blocks", description="must be at least 1"),
            BadRequest.FieldViolation(field="pool", description="no such"),
        ]
    )
    details = trailers(info("INVALID_FIELD", field="num_blocks"), bad)
    error = error_of_status(grpc.StatusCode.INVALID_ARGUMENT, "text", details, "host:1")
    assert isinstance(error, ValueError)
    assert error.violations == (
        FieldViolation("num_blocks", "must be at least 1"),
        FieldViolation("pool", "no such"),
    )


def test_when_to_come_back() -> None:
    plain = (("kvblock-then", "repeat"), ("kvblock-retry-after-ms", "2500"))
    details = (*trailers(info("DRAINING")), *plain)
    error = error_of_status(grpc.StatusCode.UNAVAILABLE, "text", details, "host:1")
    assert isinstance(error, UnavailableError)
    assert error.retry_after == 2.5
    assert error.reason is ErrorReason.DRAINING


@pytest.mark.parametrize("then", Then)
def test_what_to_do_is_what_the_server_says(then: Then) -> None:
    for reason in ("STATE_LIMIT", "OF_A_NEWER_SERVER"):
        details = (*trailers(info(reason)), ("kvblock-then", then.value))
        code = grpc.StatusCode.FAILED_PRECONDITION
        assert error_of_status(code, "text", details, "host:1").then is then
    lost = error_of_status(grpc.StatusCode.ABORTED, "text", details, "host:1")
    assert isinstance(lost, LeaseLostError) == (then is Then.LEASE_LOST)


@pytest.mark.parametrize("code", [one for one in grpc.StatusCode if one.value[0]])
def test_what_to_do_follows_the_code_where_nobody_says_it(code: grpc.StatusCode) -> None:
    told = error_of_status(code, "text", (("kvblock-then", "fly"),), "host:1")
    repeats = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert told.then is (Then.REPEAT if code in repeats else Then.GIVE_UP)
    assert error_of_status(code, "text", (), "host:1").then is told.then


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "\u0661", b"5"])
def test_a_retry_time_that_is_none(text: str | bytes) -> None:
    trailer = (("kvblock-retry-after-ms", text),)
    error = error_of_status(grpc.StatusCode.UNAVAILABLE, "text", trailer, "host:1")
    assert error.retry_after is None


def test_a_stale_epoch_of_a_server_that_does_not_say_what_to_do_is_a_lost_lease() -> None:
    stale = trailers(info("STALE_EPOCH", epoch="3"))
    error = error_of_status(grpc.StatusCode.FAILED_PRECONDITION, "text", stale, "host:1")
    assert (type(error), error.then) == (LeaseLostError, Then.LEASE_LOST)


def test_a_call_that_was_dropped() -> None:
    error = error_of_status(grpc.StatusCode.CANCELLED, "CANCELLED", (), "host:1")
    assert str(error) == "host:1 has dropped the call: CANCELLED"


def test_nobody_there() -> None:
    error = error_of_status(grpc.StatusCode.UNAVAILABLE, "connection refused", (), "host:1")
    assert isinstance(error, UnavailableError)
    assert error.retry_after is None
    assert str(error) == "no server answers at host:1: connection refused"


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_whether_the_fate_is_unknown_without_a_reason(code: grpc.StatusCode) -> None:
    """True for what may be said after the call was carried out, by whomever."""
    error = error_of_status(code, "text", (), "host:1")
    assert error.fate_unknown == (
        code.name
        in {
            "CANCELLED",
            "UNKNOWN",
            "DEADLINE_EXCEEDED",
            "RESOURCE_EXHAUSTED",
            "ABORTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
        }
    )


@pytest.mark.parametrize("reason", ErrorReason)
def test_a_reason_says_that_nothing_was_changed(reason: ErrorReason) -> None:
    code = reason.code or grpc.StatusCode.UNAVAILABLE
    error = error_of_status(code, "text", trailers(info(reason.name)), "host:1")
    assert error.fate_unknown == (reason is ErrorReason.JOURNAL_UNWRITABLE)


OWN_CLASSES = {
    ErrorReason.MEMORY_UNUSABLE: MemoryUnusableError,
    ErrorReason.STALE_EPOCH: LeaseLostError,
    ErrorReason.RATE_LIMITED: RateLimitedError,
    ErrorReason.SESSION_REPLACED: SessionReplacedError,
}
"""Those that callers handle apart from others of their code."""


@pytest.mark.parametrize("reason", ErrorReason)
def test_class_follows_the_reason(reason: ErrorReason) -> None:
    of_code = type(error_of_status(reason.code or grpc.StatusCode.UNKNOWN, "text", (), "host:1"))
    assert reason.error is OWN_CLASSES.get(reason, of_code)
    # Whatever became of its code on the way.
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    error = error_of_status(code, "text", trailers(info(reason.name)), "host:1")
    assert type(error) is reason.error


def test_a_call_without_an_epoch_has_no_lease_to_lose() -> None:
    stale = trailers(info("STALE_EPOCH", epoch="0", current="7"))
    details = (*stale, ("kvblock-then", "give_up"))
    error = error_of_status(grpc.StatusCode.FAILED_PRECONDITION, "text", details, "host:1")
    assert type(error) is FailedPreconditionError


def test_reason_of_a_newer_server() -> None:
    error = error_of_status(
        grpc.StatusCode.FAILED_PRECONDITION, "text", trailers(info("LATER", a="b")), "host:1"
    )
    assert (error.reason, error.metadata) == (ErrorReason.UNSPECIFIED, {"a": "b"})


@pytest.mark.parametrize(
    "details",
    [
        trailers(info("DRAINING", domain="other.example")),
        trailers(DebugInfo(detail="stack")),
        trailers(),
        (("grpc-status-details-bin", b"\xff\xff"),),
        (("grpc-status-details-bin", "text"),),
        (
            (
                "grpc-status-details-bin",
                Status(
                    details=[
                        Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
                    ]
                ).SerializeToString(),
            ),
        ),
    ],
    ids=["other domain", "other detail", "none", "garbage", "text", "garbage inside"],
)
def test_details_that_are_not_ours(details: Trailers) -> None:
    error = error_of_status(grpc.StatusCode.FAILED_PRECONDITION, "text", details, "host:1")
    assert (type(error), error.reason, str(error)) == (FailedPreconditionError, None, "text")


@pytest.mark.parametrize(
    "imports",
    [
        "import kvblock.wire; import google.rpc.status_pb2, google.rpc.error_details_pb2",
        "import google.rpc.status_pb2, google.rpc.error_details_pb2; import kvblock.wire",
        "import kvblock.wire; import grpc_health.v1.health_pb2",
    ],
)
def test_standard_messages_may_be_imported_too(imports: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", imports], check=True)


def test_a_rate_limit_is_told_by_its_reason() -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    plain = (("kvblock-then", "repeat"), ("kvblock-retry-after-ms", "250"))
    details = (*trailers(info("RATE_LIMITED")), *plain)
    error = error_of_status(code, "text", details, "host:1")
    assert isinstance(error, RateLimitedError)
    assert (error.then, error.retry_after) == (Then.REPEAT, 0.25)
    assert type(error_of_status(code, "text", trailers(info("OTHER")), "host:1")) is KVBlockError
