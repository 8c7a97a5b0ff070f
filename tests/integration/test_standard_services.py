"""What every gRPC server should have: health, reflection, channelz."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import kvblock
from kvblock.v1 import admin_pb2, kvblock_pb2

SERVICES = ["kvblock.v1.KVBlockService", "kvblock.v1.KVBlockAdmin"]
REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
Status = health_pb2.HealthCheckResponse


@pytest.fixture
def channel(shared_server: kvblock.EmbeddedServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared_server.address) as opened:
        yield opened


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_of_the_server_and_of_its_services(channel: grpc.Channel, service: str) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request).status == Status.SERVING
    watch = stub.Watch(request)
    assert next(watch).status == Status.SERVING
    watch.cancel()


def test_health_of_a_service_that_is_not_there(channel: grpc.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="kvblock.v1.Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(request)
    assert next(watch).status == Status.SERVICE_UNKNOWN
    watch.cancel()


def ask_reflection(channel: grpc.Channel, name: str, **request: Any) -> Any:
    """What the reflection service of that name answers to one request."""
    generic: Any = channel
    sent = reflection_pb2.ServerReflectionRequest(**request).SerializeToString()
    stream = generic.stream_stream(f"/{name}/ServerReflectionInfo")(iter([sent]), timeout=20)
    (answer,) = map(reflection_pb2.ServerReflectionResponse.FromString, stream)
    return answer


@pytest.mark.parametrize("name", REFLECTION)
def test_reflection_lists_every_service_that_is_served(channel: grpc.Channel, name: str) -> None:
    listed = ask_reflection(channel, name, list_services="").list_services_response.service
    others = {"grpc.health.v1.Health", "grpc.channelz.v1.Channelz"}
    assert {one.name for one in listed} == {*SERVICES, *others, *REFLECTION}


@pytest.mark.parametrize("name", REFLECTION)
def test_reflection_describes_every_service_that_it_lists(channel: grpc.Channel, name: str) -> None:
    for one in ask_reflection(channel, name, list_services="").list_services_response.service:
        found = ask_reflection(channel, name, file_containing_symbol=one.name)
        pool = DescriptorPool()
        for file in reversed(found.file_descriptor_response.file_descriptor_proto):
            pool.AddSerializedFile(file)
        assert pool.FindServiceByName(one.name).methods, one.name


@pytest.mark.parametrize("file", [kvblock_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR])
def test_reflection_describes_what_is_served(channel: grpc.Channel, file: Any) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    assert pool.FindFileByName(file.name).serialized_pb == file.serialized_pb


def test_channelz_shows_the_server_and_its_calls(channel: grpc.Channel) -> None:
    generic: Any = channel
    stats = generic.unary_unary("/kvblock.v1.KVBlockService/Stats")
    stub = channelz_pb2_grpc.ChannelzStub(channel)

    def calls() -> int:
        servers = stub.GetServers(channelz_pb2.GetServersRequest()).server
        assert len(servers) == 1
        return int(servers[0].data.calls_succeeded)

    before = calls()
    for _ in range(3):
        stats(b"")
    assert calls() >= before + 3


def test_method_that_is_not_there(channel: grpc.Channel) -> None:
    generic: Any = channel
    with pytest.raises(grpc.RpcError) as caught:
        generic.unary_unary("/kvblock.v1.KVBlockService/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
