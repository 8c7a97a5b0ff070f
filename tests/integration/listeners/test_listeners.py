"""Where a server listens, what it leaves behind, and when it refuses to start."""

import os
import signal
import socket
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

import kvblock
from tests.integration.spawned import Spawned, spawned

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kv.sock"


def refused(server: Spawned) -> str:
    """The message of a server that does not start."""
    assert server.first_line() == ""
    assert server.end() == 1
    log = server.log()
    assert "Traceback" not in log
    return log


def serves(address: str) -> bool:
    with kvblock.connect(address) as kv:
        return kv.stats().pools[0].pool == "main"


def stop(server: Spawned) -> None:
    server.send(signal.SIGTERM)
    assert server.end() == 0


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_all_listeners_show_the_same_server(path: Path) -> None:
    listen = ["--listen", f"unix:{path}", "--listen", ANY_PORT, "--listen", ANY_PORT]
    with spawned(*listen) as server:
        addresses = server.ready()
        assert addresses[0] == f"unix:{path}"
        ports = [int(address.removeprefix("127.0.0.1:")) for address in addresses[1:]]
        assert len({0, *ports}) == 3
        with ExitStack() as stack:
            clients = [stack.enter_context(kvblock.connect(one)) for one in addresses]
            granted = [kv.allocate(1) for kv in clients]
            assert [one.table_length for one in granted if isinstance(one, kvblock.Granted)] == [
                1,
                2,
                3,
            ]
            assert {kv.stats().server_epoch for kv in clients} == {clients[0].stats().server_epoch}
        stop(server)
    assert left_in(path.parent) == []


def test_ipv6_listener() -> None:
    with spawned("--listen", "[::1]:0") as server:
        (address,) = server.ready()
        assert address.startswith("[::1]:")
        assert serves(address)


def test_unix_socket_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with spawned("--listen", f"unix:{path}") as server:
            server.ready()
            mode = path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
    finally:
        os.umask(before)


def test_relative_path_is_announced_as_absolute(tmp_path: Path) -> None:
    with spawned("--listen", "unix:kv.sock", cwd=tmp_path) as server:
        assert server.ready() == [f"unix:{tmp_path}/kv.sock"]
        assert serves(f"unix:{tmp_path}/kv.sock")


def test_stale_socket_of_a_killed_server_is_taken_over(path: Path) -> None:
    listen = ("--listen", f"unix:{path}")
    with spawned(*listen) as first:
        first.ready()
        first.send(signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
    assert path.is_socket()
    with spawned(*listen) as second:
        assert second.ready() == [f"unix:{path}"]
        assert serves(f"unix:{path}")
        stop(second)
    assert left_in(path.parent) == []


def test_stale_socket_of_another_program_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
    with spawned("--listen", f"unix:{path}") as server:
        server.ready()
        assert serves(f"unix:{path}")


def test_socket_of_a_living_server_is_refused(path: Path) -> None:
    listen = ("--listen", f"unix:{path}")
    with spawned(*listen) as first:
        first.ready()
        with spawned(*listen) as second:
            assert f"unix:{path}: a living kvblock server has this socket" in refused(second)
        assert serves(f"unix:{path}")
        stop(first)


def test_socket_of_another_program_is_refused(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with spawned("--listen", f"unix:{path}") as server:
            assert f"unix:{path}: another process listens on this socket" in refused(server)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert left_in(path.parent) == [path.name]


def test_port_of_a_living_server_is_refused() -> None:
    with spawned("--listen", ANY_PORT) as first:
        (address,) = first.ready()
        with spawned("--listen", address) as second:
            assert f"{address}: another process listens on this port" in refused(second)
        assert serves(address)


def test_port_of_another_program_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with spawned("--listen", address) as server:
            assert f"{address}: another process listens on this port" in refused(server)


def test_port_is_shared_with_nobody() -> None:
    with spawned("--listen", ANY_PORT) as server:
        (address,) = server.ready()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with pytest.raises(OSError, match="Address already in use"):
                other.bind(("127.0.0.1", int(address.rpartition(":")[2])))


def test_port_is_free_again_after_the_end() -> None:
    with spawned("--listen", ANY_PORT) as first:
        (address,) = first.ready()
        assert serves(address)
        stop(first)
    with spawned("--listen", address) as second:
        assert second.ready() == [address]


def test_regular_file_is_refused_and_kept(path: Path) -> None:
    path.write_text("mine")
    with spawned("--listen", f"unix:{path}") as server:
        assert f"unix:{path}: there is a file that is not a socket; remove it" in refused(server)
    assert path.read_text() == "mine"
    assert left_in(path.parent) == [path.name]


def test_symbolic_link_is_refused_and_kept(path: Path) -> None:
    path.symlink_to("nowhere")
    with spawned("--listen", f"unix:{path}") as server:
        assert f"unix:{path}: there is a file that is not a socket; remove it" in refused(server)
    assert path.is_symlink()
    assert left_in(path.parent) == [path.name]


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "kv.sock"
    with spawned("--listen", f"unix:{path}") as server:
        assert f"unix:{path}: No such file or directory" in refused(server)


def test_host_of_another_machine_is_refused() -> None:
    # An address for documentation: no machine has it.
    with spawned("--insecure", "--listen", "192.0.2.1:0") as server:
        assert "192.0.2.1:0: Cannot assign requested address" in refused(server)


@pytest.mark.parametrize("taken_first", [True, False])
def test_refused_server_leaves_nothing_behind(path: Path, taken_first: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        addresses = [taken, f"unix:{path}"] if taken_first else [f"unix:{path}", taken]
        with spawned("--listen", addresses[0], "--listen", addresses[1]) as server:
            assert taken in refused(server)
    assert left_in(path.parent) == []


@pytest.mark.parametrize("listener", ["unix", "tcp"])
def test_of_those_that_start_at_once_one_serves(path: Path, listener: str) -> None:
    address = f"unix:{path}"
    if listener == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
    with ExitStack() as stack:
        servers = [stack.enter_context(spawned("--listen", address)) for _ in range(3)]
        lines = [server.first_line() for server in servers]
        winners = [one for one, line in zip(servers, lines, strict=True) if line]
        assert len(winners) == 1, lines
        for server in servers:
            if server is not winners[0]:
                assert server.end() == 1
                assert "Traceback" not in server.log()
                assert address in server.log()
        assert serves(address)
        stop(winners[0])
    assert left_in(path.parent) == []
