"""The server that lives as long as a `with` block."""

import gc
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import kvblock


def test_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with kvblock.EmbeddedServer(("a:total=3,block_size=2,device=1",)) as server:
        assert server.addresses == (server.address,)
        assert server.metrics_address is None
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o077 == 0
        with kvblock.connect(server.address, timeout=30.0) as kv:
            assert kv.allocate(1, 3) == kvblock.Granted([0, 1, 2], 2, 1, 3)
    assert server.process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert server.stop() == 0


@pytest.mark.parametrize("name", ["d" * 100, "blank here", "per%cent"])
def test_where_the_usual_directory_cannot_hold_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    usual = tmp_path / name
    usual.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    with kvblock.EmbeddedServer() as server:
        directory = Path(server.address.removeprefix("unix:")).parent
        assert directory.parent != usual
        assert directory.stat().st_mode & 0o077 == 0
        with kvblock.connect(server.address, timeout=30.0) as kv:
            assert kv.health()
    assert not directory.exists()
    assert list(usual.iterdir()) == []


def test_where_no_directory_can_hold_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, missing = tmp_path / ("d" * 100), tmp_path / "missing"
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    monkeypatch.setattr("kvblock.embedded.OTHER_DIRECTORIES", (str(missing),))
    limit = len(str(missing)) + 30
    monkeypatch.setattr("kvblock.embedded.SOCKET_BYTES_MAX", limit)
    server = kvblock.EmbeddedServer()
    with pytest.raises(kvblock.ServerStartError) as caught:
        server.start()
    size = len(f"{usual}/kvblock-12345678/kvblock.sock")
    assert str(caught.value) == (
        f"no directory can hold the server's socket (set TMPDIR): {usual}: the path of a socket in"
        f" it has {size} bytes, of at most {limit}; {missing}: No such file or directory"
    )


def test_more_listeners() -> None:
    with kvblock.EmbeddedServer(extra_args=("--listen", "127.0.0.1:0")) as server:
        assert len(server.addresses) == 2
        for address in server.addresses:
            with kvblock.connect(address, timeout=30.0) as kv:
                assert kv.health()


def test_variables_for_other_servers_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVBLOCK_LISTEN", "not an address")
    monkeypatch.setenv("KVBLOCK_CONFIG", "/nonexistent.toml")
    with kvblock.EmbeddedServer() as server, kvblock.connect(server.address, timeout=30.0) as kv:
        assert kv.health()


def test_variables_that_are_meant_for_it() -> None:
    with kvblock.EmbeddedServer(env={"KVBLOCK_LOG_FORMAT": "json"}) as server:
        pass
    assert server.stderr.startswith("{")


def test_start_that_fails() -> None:
    with (
        pytest.raises(kvblock.ServerStartError) as caught,
        kvblock.EmbeddedServer(("nonsense",)),
    ):
        pass
    assert str(caught.value) == (
        "the server ended before it was ready (exit code 2): error: --pool nonsense: total is not"
        " given"
    )


def test_start_that_cannot_bind() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(kvblock.ServerStartError, match=rf"exit code 1\)(.|\n)*{address}"),
            kvblock.EmbeddedServer(extra_args=("--listen", address)),
        ):
            pass


def test_start_that_takes_too_long() -> None:
    server = kvblock.EmbeddedServer(start_timeout=0.0)
    with pytest.raises(kvblock.ServerStartError, match="not ready within 0 s, and was stopped"):
        server.start()
    assert server.process.poll() is not None


def test_before_its_start() -> None:
    server = kvblock.EmbeddedServer()
    assert (server.stop(), server.stderr, server.addresses) == (None, "", ())
    with pytest.raises(kvblock.KVBlockError, match="not started"):
        _ = server.process


def test_second_start(server: kvblock.EmbeddedServer) -> None:
    with pytest.raises(kvblock.KVBlockError, match="started before"):
        server.start()


def test_forgotten() -> None:
    server = kvblock.EmbeddedServer()
    server.start()
    process = server.process
    del server
    gc.collect()
    assert process.poll() == 0


def test_forgotten_at_exit() -> None:
    program = (
        "import kvblock; s = kvblock.EmbeddedServer(); s.start(); print(s.process.pid, s.address)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    pid, address = done.stdout.split()
    assert not Path(address.removeprefix("unix:")).parent.exists()
    assert not Path(f"/proc/{pid}").exists()
    assert done.stderr == ""


FORKED = """
import os, sys
import kvblock

def fork(end):
    pid = os.fork()
    if pid == 0:
        end()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), end=" ")

def stop():
    print(server.stop(), flush=True)
    os._exit(0)

with kvblock.EmbeddedServer() as server:
    fork(sys.exit)
    fork(stop)
    with kvblock.connect(server.address, timeout=60.0) as kv:
        print(kv.health(), end=" ")
print(server.process.returncode, os.path.exists(server.address.removeprefix("unix:")))
"""


def test_forked_child_leaves_it_alone() -> None:
    """Whichever way it ends: the server is its parent's."""
    done = subprocess.run(
        [sys.executable, "-u", "-c", FORKED], check=True, capture_output=True, text=True
    )
    # The child that leaves by an exception leaves the `with` block, too.
    assert done.stdout == "0 None\n0 True 0 False\n"
    assert done.stderr == ""


def test_server_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvblock.embedded.STOP_SECONDS", 0.2)
    with kvblock.EmbeddedServer() as server:
        server.process.send_signal(signal.SIGSTOP)
    assert server.process.returncode == -signal.SIGKILL
