"""The benchmark works: it measures what it says, on tiny sizes, and gives back what it takes.

No figure is judged here: how fast anything is, is for `make bench` on a quiet machine.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

import kvblock
from benchmarks import machine, raw, report
from benchmarks.block_pool import PYTHON_VARIABLE, lacking_vllm
from benchmarks.child import collector, echo_server, private_directory
from benchmarks.context import Effort, Results
from benchmarks.interleave import Plan, interleave
from benchmarks.run import run
from benchmarks.workload import Step, Steps
from tests.conftest import ServerFactory

TINY = Effort("tiny", 0, 1, 0, large_pool=1 << 15, memory=20_000)

BY_SIZE = (
    "stream_step_over_echo",
    "unary_step_over_echo",
    "unary_step_over_stream_step",
    "acquire_over_allocate_step",
)
FIGURES = (
    "stash_acquire_us",
    "large_pool_acquired_over_small",
    "unary_allocate_over_echo",
    "large_pool_over_small",
    "bytes_per_block",
    "tracing_1pct_over_off",
    "tracing_all_over_off",
)
REDIS = "redis_over_stream_step"


def measure(*only: str, address: str | None = None) -> Results:
    return asyncio.run(run(address, "", only, lambda _title, _weight: lambda _done: None, TINY))


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_key_is_measured_or_said_to_be_missing() -> None:
    document = report.document(results := measure(), machine.facts(), TINY)
    by_size = [*BY_SIZE, REDIS]
    if lacking_vllm():
        for key in ("block_pool_over_vllm", "block_pool_steps_per_iteration"):
            assert PYTHON_VARIABLE in results.missing.pop(key)
    if shutil.which("redis-server") is None:
        assert "redis-server" in results.missing[REDIS]
        by_size.remove(REDIS)
    else:
        assert not results.missing
    for key in by_size:
        figures = document[key]
        assert isinstance(figures, dict)
        assert list(figures) == ["1", "32", "256", "2048"]
        assert all(figure > 0 for figure in figures.values())
    for key in FIGURES:
        figure = document[key]
        assert isinstance(figure, float)
        assert figure > 0
    engines = results.details["concurrent_engines"]
    assert isinstance(engines, dict)
    assert list(engines) == ["step_size", "1", "8", "64"]
    assert json.loads(json.dumps(document))["quick"] is True


def test_a_foreign_server_gets_everything_back(server_factory: ServerFactory) -> None:
    server = server_factory(("main:total=1000,block_size=16,device=0",))
    results = measure(address=server.address)
    by_size = results.figures["stream_step_over_echo"]
    assert isinstance(by_size, dict)
    assert list(by_size) == ["1", "32", "256"]
    only_once = ["a step of 2048", "engines at once: 64"]
    own_servers = ["large_pool_over_small", "tracing_1pct_over_off", "tracing_all_over_off"]
    assert {*only_once, *own_servers, "bytes_per_block"} <= set(results.missing)
    with kvblock.connect(server.address) as client:
        (pool,) = client.stats().pools
    assert (pool.held_blocks, pool.sequences, pool.engines) == (0, 0, ())


def test_without_redis_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    results = measure("redis", "core")
    assert "apt-get install redis-server" in results.missing[REDIS]
    assert "bytes_per_block" in results.figures


def test_a_round_gives_all_the_same_requests_and_turns_the_order() -> None:
    log: list[tuple[str, list[Step]]] = []

    class Clockwork:
        def __init__(self, name: str, nanoseconds: int) -> None:
            self.name = name
            self.nanoseconds = nanoseconds

        async def run(self, requests: Sequence[Step]) -> list[int]:
            log.append((self.name, list(requests)))
            # What disturbs a whole round disturbs both sides, and so not their ratio.
            return [self.nanoseconds * (1 + len(log) // 2)] * len(requests)

    subjects = {"a": Clockwork("a", 3000), "b": Clockwork("b", 1000)}
    found = asyncio.run(interleave(subjects, Steps(2).take, Plan(0, 4, rounds=5, warm_up=1)))
    assert [name for name, _ in log] == ["a", "b", *["a", "b", "b", "a"] * 2, "a", "b"]
    for first, second in zip(log[::2], log[1::2], strict=True):
        assert first[1] == second[1]
    assert found.latencies("a").calls == 20
    assert found.ratio("a", "b") == pytest.approx(3, rel=0.5)


def test_steps_free_what_the_step_before_took() -> None:
    steps = Steps(3).take(2) + Steps(3, first=7).take(1)
    assert steps == [Step([], [1, 2, 3]), Step([1, 2, 3], [4, 5, 6]), Step([], [7, 8, 9])]


def test_the_echo_answers_what_it_was_given() -> None:
    async def talk(address: str) -> tuple[bytes, bytes, bytes]:
        async with raw.open_channel(address) as channel:
            method = await raw.echo_method(channel, "name", b"unary")
            unary: bytes = await method(b"anything")
            async with raw.echo_stream(channel, b"stream") as stream:
                await stream.run([b"one", b"two"])
            discard: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            )
            return unary, stream.last_answer, await discard(b"spans")

    with (
        private_directory() as directory,
        echo_server(f"unix:{directory / 'echo'}", tuned=False) as address,
    ):
        assert asyncio.run(talk(address)) == (b"unary", b"stream", b"")
    with collector() as address:
        assert asyncio.run(talk(address)) == (b"unary", b"stream", b"")


def test_the_command_writes_a_table_and_json(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    ended = bench("--quick", "--only", "core", "--output", str(path))
    assert ended.returncode == 0, ended.stderr
    assert "resident bytes per used block" in ended.stdout
    assert "\x1b" not in ended.stdout
    document = json.loads(path.read_text())
    assert document["bytes_per_block"] > 0
    assert document["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--only", "nonsense"), 2, "nonsense"),
        (("--pool", "main"), 2, "--address"),
        (("--output", "/nowhere/bench.json"), 2, "/nowhere/bench.json"),
        (("--address", "unix:/nowhere.sock", "--only", "stream"), 3, "/nowhere.sock"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_the_command_says_what_is_wrong(arguments: tuple[str, ...], code: int, text: str) -> None:
    ended = bench(*arguments)
    assert ended.returncode == code, ended.stderr
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
