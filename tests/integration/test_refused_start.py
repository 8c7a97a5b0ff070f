"""A start that is refused leaves nothing behind but what it says."""

import socket
from pathlib import Path

import pytest

import kvblock
from tests.integration.spawned import spawned
from tests.logs import no_faults


def refused(code: int, *arguments: str) -> str:
    """The log of a server that does not get ready; it has to end with this code."""
    with spawned(*arguments) as server:
        assert server.first_line() == ""
        assert server.end() == code
        no_faults(server.log())
        return server.log()


def test_a_socket_that_belongs_to_a_living_server() -> None:
    with kvblock.EmbeddedServer() as living:
        log = refused(1, "--listen", living.address)
    assert [line.count("cannot listen") for line in log.splitlines()] == [1]


@pytest.mark.parametrize("option", ["--listen", "--metrics-listen"])
def test_a_port_that_is_taken(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = ("--listen", f"unix:{tmp_path}/kv.sock")
        log = refused(1, *other, option, address)
    assert [line.count(address) for line in log.splitlines()] == [1]


def test_an_access_file_that_is_not_there(tmp_path: Path) -> None:
    missing = f"{tmp_path}/access.toml"
    log = refused(2, "--listen", f"unix:{tmp_path}/kv.sock", "--access-file", missing)
    assert [line.count(missing) for line in log.splitlines()] == [1]
