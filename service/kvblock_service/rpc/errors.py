"""How an error goes over the wire.

Rules:
- Every CallError carries an ErrorInfo of domain `kvblock.v1`; one that names a field also a
  BadRequest; one that names a time also a RetryInfo.
- Beside them, and with every other status that this server makes, plain trailers say what the
  caller does next. gRPC's own `grpc-retry-pushback-ms` says the same to a client whose service
  config has it repeat calls: -1 forbids that, and without the trailer gRPC takes its own time.
- Anything else is a bug: the client learns nothing but INTERNAL, the log has the rest.
"""

from math import ceil
from typing import TypeAlias

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from kvblock_service.call_error import CallError, Then

DOMAIN = "kvblock.v1"
Trailers: TypeAlias = tuple[tuple[str, str | bytes], ...]


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


def trailers_of(error: CallError) -> Trailers:
    """The trailers of an error: its details, and what they say in plain text."""
    details = rpc_status.to_status(status_of(error)).trailing_metadata
    plain = then_trailers(error.then, getattr(error, "retry_after", None))
    return (*details, ("kvblock-reason", error.reason), *plain)


def then_trailers(then: Then, retry_after: float | None = None) -> Trailers:
    """The trailers that say what to do, at the earliest in so many seconds."""
    trailers: Trailers = (("kvblock-then", then.value),)
    if retry_after is not None:
        milliseconds = str(ceil(retry_after * 1000))
        trailers += (("kvblock-retry-after-ms", milliseconds),)
        if then is Then.REPEAT:
            trailers += (("grpc-retry-pushback-ms", milliseconds),)
    if then is not Then.REPEAT:
        trailers += (("grpc-retry-pushback-ms", "-1"),)
    return trailers


def duration_of(seconds: float) -> Duration:
    """A time span in seconds as a protobuf Duration."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
