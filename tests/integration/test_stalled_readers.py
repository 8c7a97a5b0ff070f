"""A server whose stderr, stdout or collector is not read goes on, and ends in time.

Each pipe holds 4 KiB and is full before the server starts.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kvblock
from tests.integration.processes import plain_environment
from tests.integration.spawned import LAST_RESORT
from tests.pipes import CAPACITY, Pipe, small_pipe

SERVE = [sys.executable, "-m", "kvblock", "serve", "--pool", "main:total=64"]


@contextmanager
def serving(
    directory: Path, stdout: int, stderr: int, *arguments: str, **variables: str
) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """A server with these descriptors, and its address; it may not be ready yet."""
    address = f"unix:{directory}/kv.sock"
    with subprocess.Popen(
        [*SERVE, "--listen", address, *arguments],
        env=plain_environment() | variables,
        stdout=stdout,
        stderr=stderr,
    ) as process:
        try:
            yield process, address
        finally:
            process.kill()


def use(address: str) -> None:
    """Make steps, waiting for the server to be there."""
    with kvblock.connect(address, timeout=LAST_RESORT) as kv:
        kv.stats()
        with kv.session() as session:
            for number in range(100):
                session.step(allocate=[number], free=[number - 1] if number else [])


def end(process: "subprocess.Popen[bytes]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=LAST_RESORT)


def test_a_log_that_nobody_reads(tmp_path: Path) -> None:
    arguments = ("--log-level", "debug", "--log-format", "json", "--grace", "3600")
    with small_pipe() as pipe:
        pipe.fill()
        with serving(tmp_path, subprocess.DEVNULL, pipe.writes, *arguments) as (process, address):
            use(address)
            assert end(process) == 0


def test_a_log_whose_reader_comes_back_has_its_lines_in_order(tmp_path: Path) -> None:
    with small_pipe() as pipe:
        pipe.fill()
        arguments = ("--log-level", "debug", "--log-format", "json")
        with serving(tmp_path, subprocess.DEVNULL, pipe.writes, *arguments) as (process, address):
            os.close(pipe.writes)
            use(address)
            pipe.drain()
            process.send_signal(signal.SIGTERM)
            events = [json.loads(line)["event"] for line in pipe.read_all().splitlines()]
            assert process.wait(timeout=LAST_RESORT) == 0
    assert [event for event in events if event in ("pool", "draining", "stopped")] == [
        "pool",
        "draining",
        "stopped",
    ]


def test_a_ready_line_that_nobody_reads(tmp_path: Path) -> None:
    with small_pipe() as pipe:
        pipe.fill()
        with serving(tmp_path, pipe.writes, subprocess.DEVNULL) as (process, address):
            use(address)
            assert end(process) == 0


def test_a_collector_that_takes_connections_and_reads_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "OTEL_METRIC_EXPORT_INTERVAL": "1",
        }
        with serving(tmp_path, subprocess.DEVNULL, subprocess.DEVNULL, **variables) as (
            process,
            address,
        ):
            use(address)
            assert end(process) == 0


def test_a_collector_that_stops_reading_what_it_is_sent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.echo", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as collector:
        assert collector.stdout is not None
        endpoint = collector.stdout.readline().decode().split()[-1]
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_BSP_SCHEDULE_DELAY": "1",
        }
        try:
            with serving(tmp_path, subprocess.DEVNULL, subprocess.DEVNULL, **variables) as (
                process,
                address,
            ):
                use(address)
                collector.send_signal(signal.SIGSTOP)
                use(address)
                assert end(process) == 0
        finally:
            collector.kill()


def test_a_start_that_is_refused_while_nobody_reads_the_log(tmp_path: Path) -> None:
    (tmp_path / "kv.sock").write_text("no socket")
    with small_pipe() as pipe:
        pipe.fill()
        with serving(tmp_path, subprocess.DEVNULL, pipe.writes) as (process, _):
            assert process.wait(timeout=LAST_RESORT) == 1


LINES = 10_000
MANY_LINES = f"""
import logging, sys
from kvblock_service import logging_setup
stream = logging_setup.configure("json", "info")
log = logging.getLogger("kvblock")
for number in range({LINES}):
    log.info("line", extra={{"number": number, "padding": "x" * 1000}})
print(stream.dropped, flush=True)
sys.stdin.read()
log.info("the last one")
"""


def test_lines_that_were_dropped_are_counted_and_told() -> None:
    with small_pipe() as pipe:
        pipe.fill()
        with subprocess.Popen(
            [sys.executable, "-c", MANY_LINES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=pipe.writes,
        ) as process:
            assert process.stdout is not None
            dropped = int(process.stdout.readline())
            pipe.drain()
            events = read_until_told(pipe)
            os.close(pipe.writes)
            process.communicate()
            assert process.returncode == 0
            events += [json.loads(line) for line in pipe.read_all().splitlines()]
    numbers = [event["number"] for event in events if event["event"] == "line"]
    assert numbers == list(range(LINES - dropped))
    told, last = events[len(numbers) :]
    assert (told["event"], told["lines"]) == ("lines of the log were dropped", dropped)
    assert last["event"] == "the last one"


def read_until_told(pipe: Pipe) -> "list[dict[str, object]]":
    text = b""
    while b"lines of the log were dropped" not in text or not text.endswith(b"\n"):
        text += os.read(pipe.reads, CAPACITY)
    return [json.loads(line) for line in text.decode().splitlines()]
