"""Server reflection, under both names that clients ask for.

Rules:
- `grpc.reflection.v1` has the messages of `grpc.reflection.v1alpha`, byte for byte. The library has
  the latter only, which answers both here.
- Every service that is served is listed and can be described, these two included.
"""

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

from kvblock_service.rpc.handlers import Methods

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")


def enable(services: Iterable[str], server: Methods) -> None:
    """Serve reflection about services, and about itself."""
    describe_v1()
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer((*services, V1ALPHA, V1)).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (V1ALPHA, V1):
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})


def describe_v1() -> None:
    """Make the descriptors of v1 known, unless a library has brought them."""
    pool = descriptor_pool.Default()
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file = text_format.Parse(str(file).replace("v1alpha", "v1"), FileDescriptorProto())
    try:
        pool.FindServiceByName(V1)
    except KeyError:
        pool.AddSerializedFile(file.SerializeToString())
