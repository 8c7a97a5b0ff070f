"""A server that has no file descriptor left to accept a connection with."""

import contextlib
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import urlopen

import pytest

import kvblock
from tests.waiting import happens

FEW = 48


@pytest.fixture
def few_files() -> Iterator[kvblock.EmbeddedServer]:
    """A server that may have few open files."""
    arguments = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    with kvblock.EmbeddedServer(("main:total=8",), arguments) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
        yield server


def metric(server: kvblock.EmbeddedServer, name: str) -> float:
    assert server.metrics_address is not None
    with urlopen(f"http://{server.metrics_address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def test_that_nothing_can_be_accepted_is_told(few_files: kvblock.EmbeddedServer) -> None:
    server = few_files
    host, _, port = server.addresses[1].rpartition(":")
    assert metric(server, "process_max_fds") == FEW
    assert metric(server, "process_open_fds") < FEW
    assert metric(server, "kvblock_descriptor_shortages_total") == 0
    with ExitStack() as connections:
        for _ in range(2 * FEW):
            with contextlib.suppress(OSError):
                connections.enter_context(socket.create_connection((host, int(port)), timeout=1))
        happens(lambda: "no file descriptor is left" in server.stderr)
        assert "raise the limit of open files" in server.stderr
        assert server.stderr.count("no file descriptor is left") == 1
    happens(lambda: "connections are accepted again" in server.stderr)
    with kvblock.connect(server.address, timeout=30.0) as kv:
        assert kv.health()
    happens(lambda: metric(server, "kvblock_descriptor_shortages_total") >= 1)


def test_a_limit_below_what_connections_may_need_is_told_at_the_start() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    arguments = ["--connections-max", str(min(hard, 2**20))]
    with kvblock.EmbeddedServer(("main:total=8",), arguments) as server:
        happens(lambda: "the limit of open files is too low for connections_max" in server.stderr)
