"""The servers that are flooded."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kvblock
from tests.torture.floods.trial import Prey

TOKEN = "floods-" + "t" * 32
IDENTITIES = f"""\
unix = "token"
[[identity]]
name = "engines"
token = "{TOKEN}"
engines = ["*"]
pools = ["*"]
[end]
"""


POLLERS = {
    "own": "-event_engine_poller_for_python",
    "event-engine": "event_engine_poller_for_python",
}
"""Who reads the sockets: one thread, as `kvblock serve` has it, or gRPC's pool of threads."""


@contextmanager
def kvblock_server(poller: str = "own") -> Iterator[Prey]:
    """A server with an access file, a Unix socket and a TCP port, both of which ask for tokens."""
    with tempfile.TemporaryDirectory(prefix="floods-") as directory:
        access = Path(directory, "access.toml")
        access.touch(0o600)
        access.write_text(IDENTITIES)
        arguments = ["--listen", "127.0.0.1:0", "--access-file", str(access)]
        with kvblock.EmbeddedServer(("main:total=4096",), arguments, env=_env(poller)) as server:
            unix, tcp = server.addresses
            yield Prey(server.process.pid, tcp, unix, TOKEN)


@contextmanager
def bare_server(poller: str = "own") -> Iterator[Prey]:
    """What gRPC does by itself."""
    command = [sys.executable, "-m", "tests.torture.floods.bare"]
    environment = os.environ | _env(poller)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            yield Prey(process.pid, address, address, None)
        finally:
            process.kill()


def _env(poller: str) -> dict[str, str]:
    return {"GRPC_EXPERIMENTS": POLLERS[poller]}
