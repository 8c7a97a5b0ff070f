"""`kvblock doctor` against real servers, good ones and bad ones."""

import json
import resource
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import kvblock
from kvblock.v1 import kvblock_pb2 as pb
from kvblock.version import VERSION
from tests.conftest import ServerFactory
from tests.integration.access.conftest import IDENTITIES, POOLS, TOKENS, write
from tests.integration.cli.conftest import here
from tests.integration.cli.every_command import Here

__all__ = ["here"]

NOT_OURS = {
    (check, "warning") for check in ("clock", "limits", "memory", "disk", "round trip", "lease")
}
"""What may be wrong with the machine that tests run on."""


class Doctor:
    """Runs the command here; `report` is what it printed last."""

    def __init__(self, here: Here) -> None:
        self._here = here
        self.report: list[dict[str, str]] = []

    def __call__(self, address: str, *arguments: str, code: int) -> dict[str, str]:
        """The results that are not good, by check, without those that the machine is to blame for.

        Each result but a good one has to say what to do.
        """
        done = self._here.run("doctor", "--address", address, *arguments, "--json")
        assert (done.code, done.err) == (code, ""), done
        self.report = json.loads(done.out)["checks"]
        for one in self.report:
            assert bool(one["do"]) == (one["status"] != "ok"), one
        found = {(one["check"], one["status"]) for one in self.report}
        return {check: status for check, status in found - NOT_OURS if status != "ok"}

    def text(self, check: str) -> str:
        return "\n".join(one["text"] for one in self.report if one["check"] == check)


@pytest.fixture
def doctor(here: Here) -> Doctor:
    return Doctor(here)


def test_a_server_that_is_well(
    server_factory: ServerFactory, tmp_path: Path, doctor: Doctor
) -> None:
    state = str(tmp_path / "state")
    server = server_factory(["main:total=64"], ["--state-dir", state])
    with kvblock.connect(server.address) as kv:
        with kv.attach_engine(engine="e"):
            kv.allocate(1, 2, engine="e")
            before = kv.stats()
            assert doctor(server.address, "--state-dir", state, code=0) == {}
            after = kv.stats()
            (engine,) = after.pools[0].engines
            assert engine.engine == "e"
        assert before.pools[0].allocated_blocks_total == after.pools[0].allocated_blocks_total
    checks = {one["check"] for one in doctor.report}
    assert checks >= {"socket", "health", "round trip", "version", "lease", "engines", "pools"}
    assert checks >= {"quarantine", "clock", "disk", "journal", "limits", "memory"}
    assert f"process {server.process.pid}" in doctor.text("socket")
    assert "1 pool, " in doctor.text("journal")
    assert "TTL 10 s" in doctor.text("lease")


def test_it_is_told_in_words(server: kvblock.EmbeddedServer, here: Here) -> None:
    with kvblock.connect(server.address) as kv:
        kv.allocate(1, 64)
    done = here.run("doctor", "--address", server.address)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["CHECK", "RESULT", "FOUND"]
    assert any(line.split()[:2] == ["pools", "warning"] for line in lines)
    assert any(line.strip().startswith("do: see who holds them") for line in lines)
    assert lines[-1].startswith("no problems, ")


def test_sockets_at_which_nobody_listens(tmp_path: Path, doctor: Doctor) -> None:
    unreached = {"socket": "problem"}
    assert doctor(f"unix:{tmp_path}/none", code=3) == unreached
    (tmp_path / "file").touch()
    assert doctor(f"unix:{tmp_path}/file", code=3) == unreached
    assert doctor.text("socket").endswith("is no socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    assert doctor(f"unix:{tmp_path}/left", code=3) == unreached
    assert "that was killed has left it" in doctor.text("socket")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert doctor(f"127.0.0.1:{bound.getsockname()[1]}", code=3) == unreached
    assert doctor("nowhere.invalid:1", code=3) == unreached
    assert len(doctor.report) == 1


def test_arguments_that_can_never_be_right(here: Here) -> None:
    done = here.run("doctor", "--address", "nonsense")
    assert (done.code, done.out) == (2, "")


def test_a_socket_that_is_closed_to_this_user(
    server_factory: ServerFactory, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(socket.socket):
        """Root is kept out by no mode."""

        def connect(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    server = server_factory(["a:total=1"], ["--unix-mode", "0640"])
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Closed)
        assert doctor(server.address, code=3) == {"socket": "problem"}
    assert "is closed to this user: mode 0640 of " in doctor.text("socket")


def test_a_server_that_does_not_answer(server: kvblock.EmbeddedServer, doctor: Doctor) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        found = doctor(server.address, "--timeout", "0.2", code=3)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert found == {"health": "problem"}


def test_something_else_that_listens(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert doctor(address, "--timeout", "0.2", code=3) == {"health": "problem"}


class Versioned(grpc.GenericRpcHandler):
    """A server of another version: it is well, and has no pools."""

    def __init__(self) -> None:
        self.version = ""
        self.health = 1

    def service(self, handler_call_details: Any) -> Any:
        answers = {
            "Check": bytes([0x08, self.health]),
            "Stats": pb.StatsResponse(server_version=self.version).SerializeToString(),
        }
        answer = answers.get(handler_call_details.method.rpartition("/")[2], b"")
        return grpc.unary_unary_rpc_method_handler(lambda _, __: answer)


@pytest.fixture
def other_version() -> Iterator[tuple[Versioned, str]]:
    handler = Versioned()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(0)


def test_another_version(other_version: tuple[Versioned, str], doctor: Doctor) -> None:
    handler, address = other_version
    for version, told in (
        ("99.0.0\x1b[2J", "the server is 99.0.0\x1b[2J, this client"),
        ("", "older"),
    ):
        handler.version = version
        found = doctor(address, code=0)
        assert found["version"] == "warning"
        assert told in doctor.text("version")
    # Without a pool there is nothing to attach to.
    assert (found["lease"], found["pools"]) == ("skipped", "warning")
    handler.version = VERSION
    assert "version" not in doctor(address, code=0)


def test_a_server_that_says_that_it_does_not_serve(
    other_version: tuple[Versioned, str], doctor: Doctor
) -> None:
    handler, address = other_version
    handler.health = 2
    assert doctor(address, code=1)["health"] == "problem"
    assert "NOT_SERVING" in doctor.text("health")


def test_no_engine_can_attach(server_factory: ServerFactory, doctor: Doctor) -> None:
    server = server_factory(["main:total=64"], ["--engines-max", "1"])
    with kvblock.connect(server.address) as kv, kv.attach_engine():
        assert doctor(server.address, code=1) == {"lease": "problem", "journal": "skipped"}
        assert "engines_max" in doctor.text("lease")


def test_a_journal_that_cannot_be_written(tmp_path: Path, doctor: Doctor) -> None:
    server = kvblock.EmbeddedServer(["main:total=64"], ["--state-dir", str(tmp_path)])
    with server, kvblock.connect(server.address, retries=False) as kv:
        kv.allocate(1)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        found = doctor(server.address, "--state-dir", str(tmp_path), code=1)
        assert found["lease"] == "problem"
        assert "journal" in doctor.text("lease")
        server.process.kill()
        server.process.wait()


def test_callers_who_may_not_look(
    server_factory: ServerFactory, tmp_path: Path, doctor: Doctor
) -> None:
    access = write(tmp_path / "access.toml", IDENTITIES)
    flags = ["--listen", "127.0.0.1:0", "--access-file", str(access)]
    address = server_factory(POOLS, flags).addresses[1]
    assert doctor(address, code=1)["access"] == "problem"
    for name, expected in (("trainer", {"access": "skipped"}), ("operator", {})):
        token = tmp_path / name
        token.write_text(TOKENS[name])
        token.chmod(0o600)
        found = doctor(address, "--token-file", str(token), code=0)
        assert found == expected | {"journal": "skipped"}


def test_blocks_that_wait_or_that_nobody_takes_back(
    server_factory: ServerFactory, doctor: Doctor
) -> None:
    server = server_factory(["main:total=64,quarantine=3600"])
    with kvblock.connect(server.address) as kv:
        kv.allocate(1, 40, engine="gone")
        kv.reclaim_engine("gone", force=True)
        kv.allocate(1, 24, engine="loose")
        found = doctor(server.address, code=0)
    journal = {"journal": "skipped"}
    assert found == journal | dict.fromkeys(("quarantine", "engines", "pools"), "warning")
    assert "main (62%)" in doctor.text("quarantine")
    assert "loose in main (24)" in doctor.text("engines")


def test_state_directories(server_factory: ServerFactory, tmp_path: Path, doctor: Doctor) -> None:
    mine, other = (str(tmp_path / name) for name in ("mine", "other"))
    server = server_factory(["main:total=64"], ["--state-dir", mine])
    server_factory(["main:total=64"], ["--state-dir", other])
    assert doctor(server.address, "--state-dir", other, code=1) == {"journal": "problem"}
    assert f"the server is process {server.process.pid}" in doctor.text("journal")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert doctor(server.address, "--state-dir", str(empty), code=1) == {"journal": "problem"}
    assert doctor(server.address, code=0) == {"journal": "skipped"}


def test_the_usual_state_directory_of_this_environment(
    server_factory: ServerFactory, tmp_path: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVBLOCK_STATE_DIR", str(tmp_path))
    server = server_factory(["main:total=64"], ["--state-dir", str(tmp_path)])
    assert doctor(server.address, code=0) == {}
    assert str(tmp_path) in doctor.text("journal")


def test_a_journal_that_is_damaged(
    server_factory: ServerFactory, tmp_path: Path, doctor: Doctor
) -> None:
    state = tmp_path / "state"
    server = server_factory(["main:total=64"], ["--state-dir", str(state)])
    with kvblock.connect(server.address) as kv:
        for sequence in range(8):
            kv.allocate(sequence)
    (identity,) = state.glob("identity.json")
    sound = identity.read_bytes()
    identity.write_bytes(sound.replace(b"process", b"PROCESS"))
    assert doctor(server.address, "--state-dir", str(state), code=1) == {"journal": "problem"} | {
        "engines": "warning"
    }
    identity.write_bytes(sound)
    found = doctor(server.address, "--state-dir", str(state), code=0)
    assert found == {"engines": "warning"}
