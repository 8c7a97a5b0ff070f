"""What a server does about telemetry that nobody asked for, or that cannot be had."""

import subprocess
import sys

import pytest

import kvblock
from kvblock.otel import client_interceptors
from tests.integration.processes import plain_environment
from tests.integration.telemetry.conftest import Application
from tests.integration.telemetry.receiver import Receiver

POOL = "kv:total=8,block_size=16,device=0"
# Python writes the name of each module that it imports to stderr.
IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}
SDK = "opentelemetry.sdk"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def imports_of_a_server(env: dict[str, str]) -> str:
    with kvblock.EmbeddedServer((POOL,), env=env | IMPORTS) as server:
        with (
            kvblock.connect(server.address) as kv,
            kv.session() as session,
        ):
            kv.allocate(1)
            session.step(allocate=[2])
        assert server.stop() == 0
        return server.stderr


def test_without_variables_there_is_no_sdk() -> None:
    imports = imports_of_a_server({})
    assert "kvblock_service.telemetry.running" in imports
    assert SDK not in imports
    assert "prometheus_client" not in imports
    assert "kvblock_service.telemetry.interceptor" not in imports


def test_a_disabled_sdk_is_not_loaded(receiver: Receiver) -> None:
    imports = imports_of_a_server(receiver.env | {"OTEL_SDK_DISABLED": "true"})
    assert SDK not in imports
    assert not receiver.called.is_set()


def test_exporters_that_are_none_are_not_loaded(receiver: Receiver) -> None:
    none = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    assert SDK not in imports_of_a_server(receiver.env | none)
    assert not receiver.called.is_set()


def test_with_an_endpoint_the_sdk_is_loaded(receiver: Receiver) -> None:
    assert SDK in imports_of_a_server(receiver.env)


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (
            {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/protobuf' must be one of: grpc",
        ),
        (
            {ENDPOINT: "http://127.0.0.1:4317", "OTEL_PROPAGATORS": "tracecontext,carrierpigeon"},
            "OTEL_PROPAGATORS: Propagator carrierpigeon not found",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            "OTEL_TRACES_EXPORTER: 'zipkin' must be one of: otlp, none",
        ),
    ],
)
def test_what_cannot_be_followed_stops_the_start(env: dict[str, str], problem: str) -> None:
    server = kvblock.EmbeddedServer((POOL,), env=env)
    with pytest.raises(kvblock.ServerStartError) as raised:
        server.start()
    assert problem in str(raised.value)
    assert "exit code 2" in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_disabled_sdk_has_nothing_to_be_scraped() -> None:
    server = kvblock.EmbeddedServer(
        (POOL,),
        extra_args=("--metrics-listen", "127.0.0.1:0"),
        env={"OTEL_SDK_DISABLED": "true"},
    )
    with pytest.raises(kvblock.ServerStartError, match="OTEL_SDK_DISABLED: 'true' leaves nothing"):
        server.start()


def test_a_traced_client_needs_no_traced_server(application: Application) -> None:
    interceptors = client_interceptors(application.provider)
    with (
        kvblock.EmbeddedServer((POOL,)) as server,
        kvblock.connect(server.address, interceptors=interceptors) as kv,
    ):
        kv.allocate(1)
    assert len(application.exporter.get_finished_spans()) == 1


def test_the_client_does_not_import_opentelemetry_by_itself() -> None:
    script = "import sys, kvblock; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], env=plain_environment(), check=True)
