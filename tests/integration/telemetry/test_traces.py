"""Spans of a real server process, received over OTLP from a real socket."""

import asyncio
import json
import socket
from collections.abc import Callable

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import kvblock
from kvblock.otel import aio_client_interceptors, client_interceptors
from tests.integration.telemetry.conftest import Application
from tests.integration.telemetry.receiver import ReceivedSpan, Receiver

POOL = "kv:total=8,block_size=16,device=0"
SERVICE = "kvblock.v1.KVBlockService"
OTLP_SERVER = 2
OTLP_INTERNAL = 1
RATIO = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
TRACES_ONLY = {"OTEL_METRICS_EXPORTER": "none"}


def sync_session(address: str, application: Application, steps: int) -> None:
    interceptors = client_interceptors(application.provider)
    with (
        kvblock.connect(address, engine="e1", interceptors=interceptors) as kv,
        kv.session() as session,
    ):
        for step in range(steps):
            session.step(allocate=[step], num_blocks=[9 if step == 1 else 1])


def aio_session(address: str, application: Application, steps: int) -> None:
    async def run() -> None:
        interceptors = aio_client_interceptors(application.provider)
        async with (
            kvblock.connect_async(address, engine="e1", interceptors=interceptors) as kv,
            kv.session() as session,
        ):
            for step in range(steps):
                await session.step(allocate=[step], num_blocks=[9 if step == 1 else 1])

    asyncio.run(run())


def sync_allocate(address: str, application: Application) -> None:
    interceptors = client_interceptors(application.provider)
    with kvblock.connect(address, engine="e1", interceptors=interceptors) as kv:
        assert isinstance(kv.allocate(1, 3), kvblock.Granted)


def aio_allocate(address: str, application: Application) -> None:
    async def run() -> None:
        interceptors = aio_client_interceptors(application.provider)
        async with kvblock.connect_async(address, engine="e1", interceptors=interceptors) as kv:
            assert isinstance(await kv.allocate(1, 3), kvblock.Granted)

    asyncio.run(run())


def ids_of(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def assert_child(server: ReceivedSpan, client: ReadableSpan) -> None:
    assert (server.trace_id, server.parent_id) == ids_of(client)
    assert client.name == server.name
    assert client.kind is SpanKind.CLIENT
    assert server.kind == OTLP_SERVER


@pytest.mark.parametrize("allocate", [sync_allocate, aio_allocate])
def test_a_unary_call_is_a_child_of_the_clients_span(
    receiver: Receiver, application: Application, allocate: Callable[[str, Application], None]
) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        allocate(server.address, application)
        assert server.stop() == 0
    (client,) = application.exporter.get_finished_spans()
    span = receiver.only(f"{SERVICE}/Allocate")
    assert_child(span, client)
    assert span.service == "kvblock"
    assert span.attributes.pop("kvblock.lock_wait_ns") >= 0
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/Allocate",
        "rpc.response.status_code": "OK",
        "kvblock.pool": "kv",
        "kvblock.engine": "e1",
        "kvblock.blocks.asked": 3,
        "kvblock.blocks.granted": 3,
    }
    assert client.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/Allocate",
        "rpc.response.status_code": "OK",
        "kvblock.engine": "e1",
        "kvblock.blocks.asked": 3,
        "kvblock.blocks.granted": 3,
    }
    assert span.seconds > 0


@pytest.mark.parametrize("run", [sync_session, aio_session])
def test_a_session_is_one_span_and_its_steps_are_its_children(
    receiver: Receiver, application: Application, run: Callable[[str, Application, int], None]
) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        run(server.address, application, 3)
        assert server.stop() == 0
    client, detaching = application.exporter.get_finished_spans()
    stream = receiver.only(f"{SERVICE}/Session")
    assert_child(stream, client)
    detach = receiver.only(f"{SERVICE}/DetachEngine")
    assert_child(detach, detaching)
    assert detach.attributes["kvblock.blocks.freed"] == 2
    assert client.status.status_code is StatusCode.UNSET
    assert stream.attributes["rpc.response.status_code"] == "OK"
    assert stream.attributes["kvblock.engine"] == "e1"
    steps = sorted(
        receiver.named("kvblock.step"), key=lambda step: step.attributes["kvblock.step_id"]
    )
    assert [step.attributes["kvblock.step_id"] for step in steps] == [1, 2, 3]
    assert {(step.trace_id, step.parent_id) for step in steps} == {
        (stream.trace_id, stream.span_id)
    }
    assert {step.kind for step in steps} == {OTLP_INTERNAL}
    assert [step.attributes["kvblock.blocks.granted"] for step in steps] == [1, 0, 1]
    assert [step.attributes.get("kvblock.refusal.reason") for step in steps] == [
        None,
        "EXCEEDS_POOL",
        None,
    ]


def test_refusals_frees_and_errors_tell_what_happened(
    receiver: Receiver, application: Application
) -> None:
    interceptors = client_interceptors(application.provider)
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        with kvblock.connect(server.address, interceptors=interceptors) as kv:
            kv.allocate(1, 6)
            assert isinstance(kv.allocate(2, 3), kvblock.Refused)
            assert kv.free_returning_count(1) == 6
            with pytest.raises(kvblock.NotFoundError):
                kv.get_block_table(1)
            kv.step(allocate=[5, 6], num_blocks=[2, 3])
            assert kv.health()
        assert server.stop() == 0
    clients = {ids_of(span)[1]: span for span in application.exporter.get_finished_spans()}
    spans = {span.name.removeprefix(f"{SERVICE}/"): span for span in receiver.spans}
    assert len(clients) == len(receiver.spans) == 5  # the health check is not among them
    refused = receiver.named(f"{SERVICE}/Allocate")[1]
    assert refused.attributes["kvblock.refusal.reason"] == "POOL_EXHAUSTED"
    assert refused.attributes["kvblock.blocks.granted"] == 0
    refused_client = clients[refused.parent_id].attributes or {}
    assert refused_client["kvblock.refusal.reason"] == "POOL_EXHAUSTED"
    assert spans["FreeReturningCount"].attributes["kvblock.blocks.freed"] == 6
    assert spans["Step"].attributes["kvblock.blocks.asked"] == 5
    assert spans["Step"].attributes["kvblock.blocks.granted"] == 5
    missing = spans["GetBlockTable"]
    assert missing.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert not missing.is_error
    client = clients[missing.parent_id]
    assert client.status.status_code is StatusCode.ERROR
    assert "sequence 1" in (client.status.description or "")
    assert (client.attributes or {})["error.type"] == "NOT_FOUND"


async def cancel_while_it_waits(address: str) -> None:
    async with kvblock.connect_async(address) as kv:
        waiting = asyncio.create_task(kv.allocate(3, 1, max_wait=30))
        while not (await kv.stats()).pools[0].waiting:
            pass
        waiting.cancel()
        await asyncio.wait({waiting})
        while (await kv.stats()).pools[0].waiting:
            pass


def test_a_cancelled_call_and_a_deadline_get_their_status(receiver: Receiver) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        with kvblock.connect(server.address) as kv:
            kv.allocate(1, 8)
            with pytest.raises(kvblock.DeadlineExceededError):
                kv.allocate(2, 1, max_wait=30, timeout=0.3)
            while kv.stats().pools[0].waiting:
                pass
        asyncio.run(cancel_while_it_waits(server.address))
        assert server.stop() == 0
    granted, expired, cancelled = receiver.named(f"{SERVICE}/Allocate")
    assert granted.attributes["rpc.response.status_code"] == "OK"
    # The server's timer for the deadline and the client's word that it has given up are in a race.
    code = expired.attributes["rpc.response.status_code"]
    assert code in ("DEADLINE_EXCEEDED", "CANCELLED")
    assert expired.attributes.get("error.type", "CANCELLED") == code
    assert expired.is_error == (code == "DEADLINE_EXCEEDED")
    assert cancelled.attributes["rpc.response.status_code"] == "CANCELLED"
    assert not cancelled.is_error


def test_what_the_client_does_not_sample_has_no_spans(receiver: Receiver) -> None:
    application = Application(ALWAYS_OFF)
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        sync_allocate(server.address, application)
        sync_session(server.address, application, 3)
        with kvblock.connect(server.address) as kv:
            kv.stats()
        assert server.stop() == 0
    assert [span.name for span in receiver.spans] == [f"{SERVICE}/Stats"]


def test_always_off_exports_nothing(receiver: Receiver, application: Application) -> None:
    env = receiver.env | TRACES_ONLY | {"OTEL_TRACES_SAMPLER": "always_off"}
    with kvblock.EmbeddedServer((POOL,), env=env) as server:
        sync_allocate(server.address, application)
        sync_session(server.address, application, 3)
        assert server.stop() == 0
    assert receiver.spans == []


def test_under_a_ratio_the_steps_of_a_sampled_stream_are_decided_one_by_one(
    receiver: Receiver, application: Application
) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY | RATIO) as server:
        sync_session(server.address, application, 400)
        assert server.stop() == 0
    stream = receiver.only(f"{SERVICE}/Session")
    steps = receiver.named("kvblock.step")
    assert 100 < len(steps) < 300, len(steps)
    assert {(step.trace_id, step.parent_id) for step in steps} == {
        (stream.trace_id, stream.span_id)
    }


def test_under_a_ratio_the_steps_of_an_unsampled_stream_are_traces_that_link_to_it(
    receiver: Receiver,
) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY | RATIO) as server:
        sync_session(server.address, Application(ALWAYS_OFF), 400)
        assert server.stop() == 0
    assert receiver.named(f"{SERVICE}/Session") == []
    steps = receiver.named("kvblock.step")
    assert 100 < len(steps) < 300, len(steps)
    assert {step.parent_id for step in steps} == {""}
    assert len({step.trace_id for step in steps}) == len(steps)
    (links,) = {tuple(step.links) for step in steps}
    assert len(links) == 1
    assert all(int(step.trace_id[16:], 16) < 2**63 for step in steps)


def test_a_ratio_takes_its_share_of_calls(receiver: Receiver) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY | RATIO) as server:
        with kvblock.connect(server.address) as kv:
            for _ in range(400):
                kv.can_allocate()
        assert server.stop() == 0
    assert 100 < len(receiver.spans) < 300
    assert all(int(span.trace_id[16:], 16) < 2**63 for span in receiver.spans)


def test_a_traceparent_of_any_client_is_followed(receiver: Receiver) -> None:
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        with grpc.insecure_channel(server.address) as channel:
            stats: grpc.UnaryUnaryMultiCallable[bytes, bytes]
            stats = channel.unary_unary(f"/{SERVICE}/Stats")
            stats(b"", metadata=(("traceparent", f"00-{trace_id}-{span_id}-01"),))
            stats(b"", metadata=(("traceparent", "nonsense"),))
        assert server.stop() == 0
    first, second = receiver.named(f"{SERVICE}/Stats")
    assert (first.trace_id, first.parent_id) == (trace_id, span_id)
    assert second.parent_id == ""


def test_the_standard_variables_name_the_service_and_the_propagators(
    receiver: Receiver, application: Application
) -> None:
    env = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=blocks-of-host-7",
        "OTEL_PROPAGATORS": "baggage",
        "OTEL_BSP_SCHEDULE_DELAY": "",
    }
    with kvblock.EmbeddedServer((POOL,), env=env) as server:
        sync_allocate(server.address, application)
        assert server.stop() == 0
        assert "Traceback" not in server.stderr
    span = receiver.only(f"{SERVICE}/Allocate")
    assert span.service == "blocks-of-host-7"
    assert span.parent_id == ""
    assert receiver.metrics == {}


EAGER = {
    "OTEL_BSP_SCHEDULE_DELAY": "10",
    "OTEL_METRIC_EXPORT_INTERVAL": "10",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "600",
}


def events_of_a_life_without_collector(server: kvblock.EmbeddedServer) -> list[dict[str, str]]:
    with kvblock.connect(server.address) as kv:
        for number in range(20):
            kv.allocate(number % 4)
    assert server.stop() == 0
    return [json.loads(line) for line in server.stderr.splitlines()]


def test_a_collector_that_nobody_runs_is_no_obstacle() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        env = EAGER | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        with kvblock.EmbeddedServer((POOL,), env=env) as server:
            events = events_of_a_life_without_collector(server)
    assert events[-1]["event"] == "stopped"
    assert [event for event in events if "exception" in event] == []


def test_a_collector_that_does_not_answer_is_no_obstacle(receiver: Receiver) -> None:
    receiver.answers.clear()
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | EAGER) as server:
        assert receiver.called.wait(30)
        events = events_of_a_life_without_collector(server)
    assert events[-1]["event"] == "stopped"
    assert [event for event in events if "exception" in event] == []
