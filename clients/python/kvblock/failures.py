"""From the status of a failed call to the exception that the caller sees.

Rules:
- ErrorReason declares the class of each reason. LeaseLostError is for what the server calls a lost
  lease: STALE_EPOCH is a FailedPreconditionError to a call that had no lease to lose.
- What to do next is what the trailer `kvblock-then` says. Where a status has none, it does not come
  from a kvblock server's own code, and the class of its code decides: see KVBlockError.
- Without a reason that this client knows, the class follows the status code. That of CANCELLED is
  UnavailableError: a client that cancels its own call raises something else, so a server or a proxy
  has dropped this one.
- Reason, metadata and violations come from the google.rpc.Status in the `grpc-status-details-bin`
  trailer, `then` and `retry_after` from the plain ones.
- An ErrorInfo of another domain is not ours and gives no reason; details that are no such message
  are left out. The code and the text are always there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode

from kvblock import wire
from kvblock.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    ErrorReason,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    KVBlockError,
    LeaseLostError,
    NotFoundError,
    PermissionDeniedError,
    Then,
    UnauthenticatedError,
    UnavailableError,
)

DOMAIN = "kvblock.v1"
DETAILS_KEY = "grpc-status-details-bin"
THEN_KEY = "kvblock-then"
RETRY_AFTER_KEY = "kvblock-retry-after-ms"

_CLASSES: dict[StatusCode, type[KVBlockError]] = {
    StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    StatusCode.NOT_FOUND: NotFoundError,
    StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    StatusCode.UNAVAILABLE: UnavailableError,
    StatusCode.CANCELLED: UnavailableError,
    StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}
_THENS: dict[str | bytes | None, Then] = {then.value: then for then in Then}
_TEXTS = {
    StatusCode.UNAVAILABLE: "no server answers at {address}: {text}",
    StatusCode.CANCELLED: "{address} has dropped the call: {text}",
    StatusCode.DEADLINE_EXCEEDED: "{address} did not answer in time;"
    " whether the call was carried out is unknown",
}


def error_of(failed: grpc.RpcError, address: str) -> KVBlockError:
    """The exception for a failed call to the server at `address`."""
    trailers = cast("Iterable[tuple[str, str | bytes]]", failed.trailing_metadata() or ())
    return error_of_status(failed.code(), failed.details() or "", trailers, address)


def error_of_status(
    code: StatusCode, text: str, trailers: Iterable[tuple[str, str | bytes]], address: str
) -> KVBlockError:
    """The exception for a status with its trailing metadata."""
    trailers = list(trailers)
    details = _read_details(trailers)
    details |= _read_next(trailers)
    reason: ErrorReason | None = details.get("reason")
    if reason is None:
        text = _TEXTS.get(code, "{text}").format(address=address, text=text) or code.name
    if reason in (None, ErrorReason.UNSPECIFIED):
        lost = details.get("then") is Then.LEASE_LOST
        kind = LeaseLostError if lost else _CLASSES.get(code, KVBlockError)
    elif reason.error is LeaseLostError and details.get("then", Then.LEASE_LOST) is Then.GIVE_UP:
        kind = FailedPreconditionError
    else:
        kind = reason.error
    return kind(text, code=code, **details)


def too_late(address: str) -> DeadlineExceededError:
    """The exception for a call that the server at `address` did not answer in time."""
    code = StatusCode.DEADLINE_EXCEEDED
    return DeadlineExceededError(_TEXTS[code].format(address=address), code=code)


def _read_details(trailers: Iterable[tuple[str, str | bytes]]) -> dict[str, Any]:
    """What the details say of an error, by the names of KVBlockError's attributes."""
    found: dict[str, Any] = {}
    for packed in _details(trailers):
        try:
            if packed.type_url.endswith("/google.rpc.ErrorInfo"):
                info = wire.ErrorInfo.FromString(packed.value)
                if info.domain == DOMAIN:
                    reasons = ErrorReason.__members__
                    found["reason"] = reasons.get(info.reason, ErrorReason.UNSPECIFIED)
                    found["metadata"] = {entry.key: entry.value for entry in info.metadata}
            elif packed.type_url.endswith("/google.rpc.BadRequest"):
                bad = wire.BadRequest.FromString(packed.value)
                named = [FieldViolation(one.field, one.description) for one in bad.field_violations]
                found["violations"] = tuple(named)
        except DecodeError:
            continue
    return found


def _read_next(trailers: Iterable[tuple[str, str | bytes]]) -> dict[str, Any]:
    """What the plain trailers say of what to do, by the names of KVBlockError's attributes."""
    plain = dict(trailers)
    found: dict[str, Any] = {}
    then, delay = plain.get(THEN_KEY), plain.get(RETRY_AFTER_KEY)
    # What a newer server may say, and this client does not know, counts as not said.
    if then in _THENS:
        found["then"] = _THENS[then]
    if isinstance(delay, str) and delay.isascii() and delay.isdecimal():
        found["retry_after"] = int(delay) / 1000
    return found


def _details(trailers: Iterable[tuple[str, str | bytes]]) -> Iterable[Any]:
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(wire.Status.FromString(value).details)
            except DecodeError:
                return ()
    return ()
