"""Server reflection, under both names that clients ask for.

Rules:
- `grpc.reflection.v1` has the messages of `grpc.reflection.v1alpha`, byte for byte. The library has
  the latter only, which answers both here.
- Every service that is served is listed and can be described, these two included.
"""

from collections.abc import Iterable

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")


def enable(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve reflection about services, and about itself."""
    describe_v1()
    listed = (*services, V1ALPHA, V1)
    reflection.enable_server_reflection(listed, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(listed).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": handler}
    generic = grpc.method_handlers_generic_handler(V1, methods)
    server.add_generic_rpc_handlers((generic,))


def describe_v1() -> None:
    """Make the descriptors of v1 known, unless a library has brought them."""
    pool = descriptor_pool.Default()
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    old, new = file.package, V1.rpartition(".")[0]
    file.name = file.name.replace("v1alpha", "v1")
    file.package = new
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    try:
        pool.FindServiceByName(V1)
    except KeyError:
        pool.AddSerializedFile(file.SerializeToString())
