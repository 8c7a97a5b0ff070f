"""A server with every kind of listener, which has to live through everything.

Rules:
- After each case the server answers at each listener, and its audit is clean.
- `FUZZ_ROUNDS=N` makes N times as many cases of each kind.
"""

import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvblock
from tests.conftest import check_ended_well

ROUNDS = int(os.environ.get("FUZZ_ROUNDS") or 1)
PATIENCE = 30.0


class Target:
    """The server, and how it is reached."""

    def __init__(self, server: kvblock.EmbeddedServer) -> None:
        self.server = server
        assert server.metrics_address is not None
        self.metrics = server.metrics_address
        unix, tcp = server.addresses
        self.unix, self.tcp = unix.removeprefix("unix:"), tcp
        self._kv = kvblock.Client(server.address, engine="watcher", timeout=PATIENCE)

    def connect(self, kind: str) -> socket.socket:
        """A connection to a listener: `unix`, `tcp` or `metrics`."""
        if kind == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.unix)
        else:
            host, _, port = (self.tcp if kind == "tcp" else self.metrics).rpartition(":")
            connection = socket.create_connection((host.removeprefix("http://"), int(port)))
        connection.settimeout(0.02)
        return connection

    def check(self) -> None:
        """The server is well."""
        assert self._kv.health()
        for report in self._kv.audit():
            assert report.clean, report

    def check_everywhere(self) -> None:
        """The server is well, and each listener serves."""
        self.check()
        with kvblock.Client(self.tcp, timeout=PATIENCE) as kv:
            assert kv.health()
        host = self.metrics.removeprefix("http://").removesuffix("/metrics")
        with urllib.request.urlopen(f"http://{host}/metrics", timeout=PATIENCE) as answer:
            assert b"kvblock" in answer.read()

    def open_files(self) -> int:
        """How many files and sockets the server has open."""
        return len(list(Path(f"/proc/{self.server.process.pid}/fd").iterdir()))

    def memory_mb(self) -> float:
        """How much memory it has."""
        pages = Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with a Unix socket, a TCP port, metrics and a journal."""
    state = tmp_path_factory.mktemp("state")
    arguments = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    arguments += ["--state-dir", str(state), "--lease-ttl-min", "1"]
    with kvblock.EmbeddedServer(("main:total=64",), arguments) as server:
        target = Target(server)
        yield target
        target.check_everywhere()
        check_ended_well(server)
