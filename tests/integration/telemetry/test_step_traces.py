"""Steps of a session in the trace of the engine's iteration."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import kvblock
from kvblock.otel import aio_client_interceptors, client_interceptors
from kvblock.v1 import kvblock_pb2 as pb
from tests.integration.sessions.wire import Wire, stream
from tests.integration.telemetry.conftest import Application
from tests.integration.telemetry.receiver import Receiver

POOL = "kv:total=8,block_size=16,device=0"
SERVICE = "kvblock.v1.KVBlockService"
TRACES_ONLY = {"OTEL_METRICS_EXPORTER": "none"}
OTLP_SERVER = 2
FIRST = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

Ids = tuple[str, str]
"""A trace id and a span id."""


@contextmanager
def iteration(application: Application, ids: list[Ids]) -> Iterator[None]:
    """A span of the engine; what it is called by is put into `ids`."""
    tracer = application.provider.get_tracer("engine")
    with tracer.start_as_current_span("iteration") as span:
        context = span.get_span_context()
        ids.append((trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)))
        yield


def sync_steps(address: str, application: Application) -> list[Ids]:
    ids: list[Ids] = []
    interceptors = client_interceptors(application.provider)
    with (
        kvblock.connect(address, engine="e1", interceptors=interceptors) as kv,
        kv.session() as session,
    ):
        for step in (1, 2):
            with iteration(application, ids):
                session.step(allocate=[step])
        session.step(allocate=[3])
        assert_traces(address, ids)
    return ids


def aio_steps(address: str, application: Application) -> list[Ids]:
    ids: list[Ids] = []

    async def run() -> None:
        interceptors = aio_client_interceptors(application.provider)
        async with (
            kvblock.connect_async(address, engine="e1", interceptors=interceptors) as kv,
            kv.session() as session,
        ):
            for step in (1, 2):
                with iteration(application, ids):
                    await session.step(allocate=[step])
            await session.step(allocate=[3])
            await asyncio.to_thread(assert_traces, address, ids)

    asyncio.run(run())
    return ids


def traces_of(address: str) -> list[str]:
    """The traces that the pool's blocks were granted under, in order of the blocks."""
    with kvblock.connect(address) as kv:
        return [block.trace_id for block in kv.list_blocks()]


def assert_traces(address: str, ids: list[Ids]) -> None:
    first, second, third = traces_of(address)
    assert [first, second] == [trace_id for trace_id, _ in ids]
    assert third not in {first, second}


@pytest.mark.parametrize("run", [sync_steps, aio_steps])
def test_a_step_is_a_child_of_the_engines_span_and_its_blocks_show_that_trace(
    receiver: Receiver,
    application: Application,
    run: Callable[[str, Application], list[Ids]],
) -> None:
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        ids = run(server.address, application)
        assert server.stop() == 0
    stream_span = receiver.only(f"{SERVICE}/Session")
    first, second, third = sorted(
        receiver.named("kvblock.step"), key=lambda step: step.attributes["kvblock.step_id"]
    )
    assert [(step.trace_id, step.parent_id) for step in (first, second)] == ids
    assert (third.trace_id, third.parent_id) == (stream_span.trace_id, stream_span.span_id)
    assert first.kind == second.kind == OTLP_SERVER
    assert first.links == [(stream_span.trace_id, stream_span.span_id)]
    assert third.links == []


def test_a_step_of_an_iteration_that_is_not_sampled_is_not_sampled(receiver: Receiver) -> None:
    ids: list[Ids] = []
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY) as server:
        with (
            kvblock.connect(server.address, interceptors=client_interceptors()) as kv,
            kv.session() as session,
            iteration(Application(ALWAYS_OFF), ids),
        ):
            session.step(allocate=[1])
            assert traces_of(server.address) == [ids[0][0]]
        assert server.stop() == 0
    assert receiver.named("kvblock.step") == []
    assert len(receiver.named(f"{SERVICE}/Session")) == 1


@pytest.mark.parametrize("ratio", ["0", "1"])
def test_a_ratio_for_roots_does_not_decide_about_the_steps_of_a_trace(
    receiver: Receiver, ratio: str
) -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
    with kvblock.EmbeddedServer((POOL,), env=receiver.env | TRACES_ONLY | sampler) as server:
        wire = Wire(server.address)
        with stream(wire) as session:
            session.attach("e1")
            session.say(step=step(1, FIRST))
            session.say(step=step(2, OTHER[:-2] + "00"))
        assert server.stop() == 0
    assert [one.trace_id for one in receiver.named("kvblock.step")] == [FIRST[3:35]]


def step(step_id: int, traceparent: str) -> pb.SessionStep:
    work = pb.EngineStep(allocate_sequence_ids=[step_id])
    return pb.SessionStep(step_id=step_id, step=work, traceparent=traceparent)


def test_the_trace_of_a_step_outlives_a_server_that_is_killed_and_its_repetition(
    tmp_path: Path,
) -> None:
    """Also where the server has no telemetry."""
    arguments = ("--state-dir", str(tmp_path))
    with kvblock.EmbeddedServer((POOL,), arguments) as server:
        with stream(Wire(server.address)) as session:
            epoch = session.attach("e1").lease.epoch
            answer = session.say(step=step(1, FIRST))
            assert session.say(step=step(1, OTHER)) == answer
            assert traces_of(server.address) == [FIRST[3:35]]
        server.process.kill()
        server.process.wait()
    with kvblock.EmbeddedServer((POOL,), arguments) as server:
        assert traces_of(server.address) == [FIRST[3:35]]
        with stream(Wire(server.address)) as session:
            session.attach("e1", epoch)
            assert session.say(step=step(1, OTHER)) == answer
            assert session.say(step=step(1, "")) == answer
            assert traces_of(server.address) == [FIRST[3:35]]


NONE = (
    "nonsense",
    FIRST.upper(),
    FIRST + "-more",
    FIRST.replace("00-", "ff-", 1),
    f"00-{'0' * 32}-b7ad6b7169203331-01",
    f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    "01" + FIRST[2:] + "-" + "x" * 80,
    "00-\N{LATIN SMALL LETTER A WITH DIAERESIS}",
)


def test_what_is_no_trace_context_is_ignored() -> None:
    with (
        kvblock.EmbeddedServer(("kv:total=16",)) as server,
        stream(Wire(server.address)) as session,
    ):
        session.attach("e1")
        for step_id, traceparent in enumerate(NONE, 1):
            session.say(step=step(step_id, traceparent))
        session.say(step=step(len(NONE) + 1, "01" + FIRST[2:] + "-of-a-later-version"))
        assert traces_of(server.address) == [""] * len(NONE) + [FIRST[3:35]]


def test_without_telemetry_or_a_span_a_step_has_no_trace_context() -> None:
    """In the client, which would otherwise pay for it in every step."""
    with kvblock.EmbeddedServer((POOL,)) as server:
        application = Application()
        with kvblock.connect(server.address) as kv, kv.session() as session:
            with iteration(application, []):
                session.step(allocate=[1])
            assert traces_of(server.address) == [""]
        interceptors = client_interceptors(application.provider)
        with (
            kvblock.connect(server.address, interceptors=interceptors) as kv,
            kv.session() as session,
        ):
            session.step(allocate=[1])
            assert traces_of(server.address) == [""]
