"""How often a client that lost its server tries to connect, counted at a listening socket."""

import os
import socket
import threading
from pathlib import Path

from tests.integration.client.flavours import Flavour

import kvblock

HANG_UPS = 5


def hang_up(listener: socket.socket, path: Path, server: str) -> None:
    """End so many connections as soon as they come; then let the path lead to the server."""
    for _ in range(HANG_UPS):
        connection, _ = listener.accept()
        connection.close()
    ready = path.with_suffix(".new")
    ready.symlink_to(server.removeprefix("unix:"))
    os.replace(ready, path)
    listener.close()


def test_a_client_that_is_hung_up_on_goes_on_trying(
    flavour: Flavour, shared_server: kvblock.EmbeddedServer, tmp_path: Path
) -> None:
    """One call outlives all of it, as when a proxy takes connections for a server that is gone."""
    path = tmp_path / "front.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        front = threading.Thread(target=hang_up, args=(listener, path, shared_server.address))
        front.start()
        with flavour.entered(flavour.client(f"unix:{path}", timeout=60.0)) as kv:
            assert flavour.do(kv.can_allocate(0))
        front.join()
