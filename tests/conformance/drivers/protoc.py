"""A driver on stubs that stock protoc has just made from protos/; the argument is their folder."""

import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from kvblock.v1 import admin_pb2, admin_pb2_grpc, kvblock_pb2, kvblock_pb2_grpc
from tests.conformance.drivers.loop import Method, serve

STUBS: dict[str, tuple[Any, Any]] = {
    "KVBlockService": (kvblock_pb2, kvblock_pb2_grpc.KVBlockServiceStub),
    "KVBlockAdmin": (admin_pb2, admin_pb2_grpc.KVBlockAdminStub),
}


def resolve(channel: grpc.Channel, path: str) -> Method:
    """A method of a generated stub."""
    service, _, name = path.rpartition("/")
    module, stub = STUBS[service.rpartition(".")[2]]
    described = module.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name[name]
    start = getattr(stub(channel), name)
    return Method(start, GetMessageClass(described.input_type), described.client_streaming)


if __name__ == "__main__":
    for module, _ in STUBS.values():
        assert Path(module.__file__).is_relative_to(sys.argv[1]), f"{module} is not what was made"
    serve(resolve)
