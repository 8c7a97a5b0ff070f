"""How an error goes over the wire.

Rules:
- Every CallError carries an ErrorInfo of domain `kvblock.v1`; one that names a field also a
  BadRequest; one that names a time also a RetryInfo.
- Anything else is a bug: the client learns nothing but INTERNAL, the log has the rest.
"""

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from kvblock_service.errors import CallError

DOMAIN = "kvblock.v1"


def status_of(error: CallError) -> Status:
    """The google.rpc.Status of an error, with its details."""
    text = str(error)
    details: list[Message] = [
        ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    field, retry_after = getattr(error, "field", None), getattr(error, "retry_after", None)
    if field is not None:
        violation = BadRequest.FieldViolation(field=field, description=text)
        details.append(BadRequest(field_violations=[violation]))
    if retry_after is not None:
        details.append(RetryInfo(retry_delay=duration_of(retry_after)))
    packed = [Any() for _ in details]
    for one, detail in zip(packed, details, strict=True):
        one.Pack(detail)
    return Status(code=code_pb2.Code.Value(error.code), message=text, details=packed)


def duration_of(seconds: float) -> Duration:
    """A time span in seconds as a protobuf Duration."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
