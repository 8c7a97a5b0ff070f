"""How an error goes over the wire.

Rules:
- CODES is the one table from reason to gRPC code.
- Every CallError carries an ErrorInfo of domain `kvblock.v1`; one that names a field also a
  BadRequest; one that names a time also a RetryInfo.
- Anything else is a bug: the client learns nothing but INTERNAL, the log has the rest.
"""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from kvblock_service.errors import CallError, Reason

DOMAIN = "kvblock.v1"

CODES: dict[Reason, StatusCode] = {
    Reason.INVALID_FIELD: StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_LIMIT: StatusCode.INVALID_ARGUMENT,
    Reason.MALFORMED_MESSAGE: StatusCode.INVALID_ARGUMENT,
    Reason.POOL_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.SEQUENCE_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.STATE_LIMIT: StatusCode.FAILED_PRECONDITION,
    Reason.ENGINE_ATTACHED: StatusCode.FAILED_PRECONDITION,
    Reason.SESSION_STATE: StatusCode.FAILED_PRECONDITION,
    Reason.STEP_ID: StatusCode.FAILED_PRECONDITION,
    Reason.DRAINING: StatusCode.UNAVAILABLE,
    Reason.STALE_EPOCH: StatusCode.FAILED_PRECONDITION,
    Reason.ID_REUSED: StatusCode.INVALID_ARGUMENT,
    Reason.JOURNAL_UNWRITABLE: StatusCode.UNAVAILABLE,
    Reason.POOL_EXISTS: StatusCode.ALREADY_EXISTS,
    Reason.POOL_HELD: StatusCode.FAILED_PRECONDITION,
    Reason.ENGINE_NOT_FOUND: StatusCode.NOT_FOUND,
    Reason.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: StatusCode.PERMISSION_DENIED,
    Reason.RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
    Reason.SLOW_READER: StatusCode.ABORTED,
}


def status_of(error: CallError) -> Status:
    """The google.rpc.Status of an error, with its details."""
    details: list[Message] = [
        ErrorInfo(reason=error.reason.name, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.field is not None:
        violation = BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        details.append(RetryInfo(retry_delay=duration_of(error.retry_after)))
    packed = []
    for detail in details:
        any_ = Any()
        any_.Pack(detail)
        packed.append(any_)
    code: int = CODES[error.reason].value[0]
    return Status(code=code, message=error.message, details=packed)


def duration_of(seconds: float) -> Duration:
    """A time span in seconds as a protobuf Duration."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
