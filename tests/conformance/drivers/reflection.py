"""A driver that knows no stubs: it learns every message from the server's reflection service."""

import sys
from functools import cache

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.conformance.drivers.loop import Method, serve


@cache
def learned(channel: grpc.Channel) -> DescriptorPool:
    return DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def resolve(channel: grpc.Channel, path: str) -> Method:
    """A method as the server describes it."""
    service, _, name = path.rpartition("/")
    described = learned(channel).FindServiceByName(service).methods_by_name[name]
    request_class, answer_class = map(
        GetMessageClass, (described.input_type, described.output_type)
    )
    kind = channel.stream_stream if described.client_streaming else channel.unary_unary
    start = kind(
        f"/{path}",
        request_serializer=request_class.SerializeToString,
        response_deserializer=answer_class.FromString,
    )
    return Method(start, request_class, described.client_streaming)


if __name__ == "__main__":
    assert not any(name.partition(".")[0] == "kvblock" for name in sys.modules)
    serve(resolve)
