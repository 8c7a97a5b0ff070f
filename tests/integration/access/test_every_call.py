"""No call of any service gets past the access file without the right identity.

The methods are those of the descriptors: one that is added has to be guarded, too.
"""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import kvblock
from kvblock.v1 import admin_pb2, kvblock_pb2
from kvblock_service.rpc import reflection
from kvblock_service.rpc.gate import METHODS, Takes
from tests.integration.access.certificates import Files
from tests.integration.access.conftest import TOKENS, Guarded, port_of

SERVICE = kvblock_pb2.DESCRIPTOR.services_by_name["KVBlockService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["KVBlockAdmin"]
OURS: list[Any] = [*SERVICE.methods, *ADMIN.methods]
reflection.describe_v1()
STANDARD: list[Any] = [
    *channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].methods,
    *reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods,
    *descriptor_pool.Default().FindServiceByName(reflection.V1).methods,
]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name["Check"]

Name = grpc.StatusCode
Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


def fields_of(method: Any, pool: str, engine: str) -> Any:
    """The first message of a call that means this pool and engine."""
    message: Any = message_factory.GetMessageClass(method.input_type)()
    target = message.attach if method.name == "Session" else message
    for field, value in (("pool", pool), ("engine", engine)):
        if field in target.DESCRIPTOR.fields_by_name:
            setattr(target, field, value)
    return message


def outcome(
    channel: grpc.Channel, method: Any, message: Any, metadata: Metadata = ()
) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """The code, the reason and the metadata that a call ends with."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    sent = message.SerializeToString()
    generic: Any = channel
    try:
        if method.client_streaming:
            list(generic.stream_stream(path)(iter([sent]), metadata=metadata, timeout=20))
        else:
            generic.unary_unary(path)(sent, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        trailers: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
        info = ErrorInfo()
        if "grpc-status-details-bin" in trailers:
            Status.FromString(trailers["grpc-status-details-bin"]).details[0].Unpack(info)
        return error.code(), info.reason, dict(info.metadata)
    return Name.OK, "", {}


@pytest.fixture
def channel(guarded: Guarded, files: Files) -> Iterator[grpc.Channel]:
    """Over mTLS, with a certificate of the right authority that no identity has."""
    server = guarded(*files.serve_flags(client_ca=True))
    cert, key = files.issue("stranger", "stranger.example")
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), key.read_bytes(), cert.read_bytes()
    )
    with grpc.secure_channel(port_of(server), credentials) as opened:
        yield opened


# An engine that is attached meanwhile has an epoch, which these calls do not name.
LET_IN = (Name.OK, Name.NOT_FOUND, Name.FAILED_PRECONDITION)


def test_every_method_says_what_it_takes() -> None:
    assert set(METHODS) == {method.name for method in OURS}
    for method in ADMIN.methods:
        assert METHODS[method.name] is Takes.ADMIN
    for method in SERVICE.methods:
        assert METHODS[method.name] is not Takes.ADMIN
        if METHODS[method.name] is not Takes.SESSION:
            assert {"pool", "engine"} <= set(method.input_type.fields_by_name), method.full_name


def test_without_an_identity_every_method_is_unauthenticated(channel: grpc.Channel) -> None:
    for method in [*OURS, *STANDARD]:
        message = fields_of(method, "gpu0", "vllm-0")
        for metadata in ((), bearer("no-such-token-at-all"), (("authorization", "Basic eA=="),)):
            code, reason, _ = outcome(channel, method, message, metadata)
            assert (code, reason) == (Name.UNAUTHENTICATED, "UNAUTHENTICATED"), method.full_name
    assert outcome(channel, HEALTH, fields_of(HEALTH, "", ""))[0] is Name.OK


def test_a_stream_that_says_nothing_is_unauthenticated_too(channel: grpc.Channel) -> None:
    generic: Any = channel
    call = generic.stream_stream("/kvblock.v1.KVBlockService/Session")(iter(()), timeout=20)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is Name.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("pool", "engine", "what"),
    [
        ("gpu0", "other", "be engine 'other'"),
        ("gpu1", "vllm-0", "use pool 'gpu1'"),
        ("nowhere", "vllm-0", "use pool 'nowhere'"),
    ],
)
def test_what_is_another_s_is_denied_to_every_method(
    channel: grpc.Channel, pool: str, engine: str, what: str
) -> None:
    for method in SERVICE.methods:
        told = what
        if METHODS[method.name] is Takes.VIEW:
            told = what.replace("be ", "look at ").replace("use ", "look at ")
        message = fields_of(method, pool, engine)
        code, reason, facts = outcome(channel, method, message, bearer(TOKENS["trainer"]))
        assert (code, reason) == (Name.PERMISSION_DENIED, "PERMISSION_DENIED"), method.full_name
        assert facts == {"identity": "trainer", "what": told}


def test_admin_and_the_tools_are_for_admins(channel: grpc.Channel) -> None:
    for method in [*ADMIN.methods, *STANDARD]:
        message = fields_of(method, "gpu0", "vllm-0")
        code, reason, facts = outcome(channel, method, message, bearer(TOKENS["trainer"]))
        assert (code, reason) == (Name.PERMISSION_DENIED, "PERMISSION_DENIED"), method.full_name
        assert facts["identity"] == "trainer"
        if method.name == "Drain":
            continue  # It would end the server; that it does is tested elsewhere.
        code, _, _ = outcome(channel, method, message, bearer(TOKENS["operator"]))
        assert code not in (Name.PERMISSION_DENIED, Name.UNAUTHENTICATED), method.full_name


def test_what_is_its_own_is_permitted_to_every_method(channel: grpc.Channel) -> None:
    for method in SERVICE.methods:
        message = fields_of(method, "gpu0", "vllm-0")
        code, _, _ = outcome(channel, method, message, bearer(TOKENS["trainer"]))
        assert code in LET_IN, method.full_name


def test_empty_names_mean_the_default_ones_but_in_a_view_everything(channel: grpc.Channel) -> None:
    for method in SERVICE.methods:
        message = fields_of(method, "", "")
        code, _, facts = outcome(channel, method, message, bearer(TOKENS["trainer"]))
        if METHODS[method.name] is Takes.VIEW:
            assert code is Name.PERMISSION_DENIED
            assert facts["what"] == "look at every engine; name one"
            message = fields_of(method, "", "vllm-0")
            code, _, facts = outcome(channel, method, message, bearer(TOKENS["trainer"]))
            assert facts["what"] == "look at every pool; name one"
        else:
            assert code in LET_IN, method.full_name


def test_a_call_that_is_not_let_in_changes_nothing(guarded: Guarded) -> None:
    server = guarded()
    with kvblock.connect(server.address, token=TOKENS["operator"]) as kv:
        before = kv.stats()
        for token, engine in ((None, "vllm-0"), (TOKENS["trainer"], "other")):
            with (
                kvblock.connect(port_of(server), token=token, engine=engine) as other,
                pytest.raises((kvblock.UnauthenticatedError, kvblock.PermissionDeniedError)),
            ):
                other.allocate(1)
        assert kv.stats() == before
