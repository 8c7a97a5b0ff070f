"""How often a client that lost its server tries to connect, counted at a listening socket."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run

import pytest

import kvblock
from tests.integration.client.flavours import Flavour

HANG_UPS = 5
CALL = """
import sys
import kvblock
from kvblock import settings
patient = dict(settings.CHANNEL_OPTIONS) | {{"grpc.min_reconnect_backoff_ms": 600_000}}
settings.CHANNEL_OPTIONS = tuple(patient.items())
client = kvblock.connect(sys.argv[1], engine="hung-up-on", timeout=60.0)
with client as kv:
    {call}
"""


def hang_up(listener: socket.socket, path: Path, server: str) -> None:
    """End so many connections as soon as they come; then let the path lead to the server."""
    for _ in range(HANG_UPS):
        connection, _ = listener.accept()
        connection.close()
    ready = path.with_suffix(".new")
    ready.symlink_to(server.removeprefix("unix:"))
    os.replace(ready, path)
    listener.close()


@contextmanager
def front(path: Path, server: str) -> Iterator[str]:
    """An address that hangs up on its clients at first; all hang-ups have to come about."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=hang_up, args=(listener, path, server), daemon=True)
        thread.start()
        yield f"unix:{path}"
        thread.join(60.0)
        assert not thread.is_alive()


def test_a_client_that_is_hung_up_on_goes_on_trying(
    flavour: Flavour, shared_server: kvblock.EmbeddedServer, tmp_path: Path
) -> None:
    """One call outlives all of it, as when a proxy takes connections for a server that is gone."""
    with (
        front(tmp_path / "front.sock", shared_server.address) as address,
        flavour.entered(flavour.client(address, timeout=60.0)) as kv,
    ):
        assert flavour.do(kv.can_allocate(0))


@pytest.mark.parametrize("call", ["kv.can_allocate(0)", "kv.session().attach()"])
def test_a_call_between_two_tries_works_on_its_connection(
    call: str, shared_server: kvblock.EmbeddedServer, tmp_path: Path
) -> None:
    """With the poller that engines are told to use, nothing in gRPC does, unless it is waited in.

    It looks by itself every five seconds, and when a connection has taken too long. Here it does
    neither.
    """
    environment = {
        "GRPC_EXPERIMENTS": "-event_engine_poller_for_python",
        "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "0",
    }
    with front(tmp_path / "front.sock", shared_server.address) as address:
        command = [sys.executable, "-c", CALL.format(call=call), address]
        done = run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
