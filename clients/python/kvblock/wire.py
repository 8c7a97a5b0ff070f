"""Standard messages of other packages that this client reads, without depending on them.

Rules:
- Each message here has the field numbers and types of the standard one that its comment names, for
  the fields that are read; the rest are skipped as unknown.
- They live in a descriptor pool of their own under names of their own, so they cannot clash with
  the standard ones, whoever else imports those.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "kvblock.wire"

_STRING = _Field.TYPE_STRING
_BYTES = _Field.TYPE_BYTES
_INT32 = _Field.TYPE_INT32

_file = descriptor_pb2.FileDescriptorProto(
    name="kvblock/wire.proto", package=_PACKAGE, syntax="proto3"
)


def _message(name: str, *fields: tuple[int, str, _Field.Type.ValueType | str, bool]) -> None:
    """Declare a message: number, name, type (or the name of a message) and whether repeated."""
    message = _file.message_type.add(name=name)
    for number, field_name, kind, repeated in fields:
        field = message.field.add(name=field_name, number=number)
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        if isinstance(kind, str):
            field.type = _Field.TYPE_MESSAGE
            field.type_name = f".{_PACKAGE}.{kind}"
        else:
            field.type = kind


# google.protobuf.Any
_message("Any", (1, "type_url", _STRING, False), (2, "value", _BYTES, False))
# google.rpc.Status
_message("Status", (2, "message", _STRING, False), (3, "details", "Any", True))
# google.rpc.ErrorInfo: a map on the wire is a repeated message of key and value
_message("Entry", (1, "key", _STRING, False), (2, "value", _STRING, False))
_message(
    "ErrorInfo",
    (1, "reason", _STRING, False),
    (2, "domain", _STRING, False),
    (3, "metadata", "Entry", True),
)
# google.rpc.BadRequest and google.rpc.BadRequest.FieldViolation
_message("FieldViolation", (1, "field", _STRING, False), (2, "description", _STRING, False))
_message("BadRequest", (1, "field_violations", "FieldViolation", True))
# grpc.health.v1.HealthCheckResponse; the enum of its status field travels as a number
_message("HealthCheckResponse", (1, "status", _INT32, False))

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file.SerializeToString())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


Status = _class("Status")
ErrorInfo = _class("ErrorInfo")
BadRequest = _class("BadRequest")
HealthCheckResponse = _class("HealthCheckResponse")
