"""Files that are damaged, or rewritten in place, under a live server: nobody gets in by that."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvblock
from tests.integration.access.certificates import Files
from tests.integration.access.conftest import (
    IDENTITIES,
    REFUSED,
    TAKEN_UP,
    TOKENS,
    Guarded,
    follows,
    port_of,
    rewrite,
    whole,
    write,
)
from tests.integration.spawned import spawned

CLOSED = whole(IDENTITIES, "token")
CALLS = 400


@pytest.fixture
def closed(guarded: Guarded, access: Path) -> Iterator[kvblock.EmbeddedServer]:
    """A server whose Unix socket takes credentials."""
    write(access, IDENTITIES, "token")
    server = guarded()
    yield server
    # What looks at the server at the end of the test has none.
    access.unlink(missing_ok=True)
    with follows(server):
        write(access, IDENTITIES)


def is_closed(server: kvblock.EmbeddedServer) -> bool:
    """Whether an admin's call without credentials is refused."""
    with kvblock.connect(server.address, timeout=20.0) as kv:
        try:
            kv.list_pools()
        except kvblock.UnauthenticatedError:
            return True
    return False


@contextmanager
def rewritten_in_a_loop(path: Path) -> Iterator[None]:
    """Let a file be emptied and written again, a table at a time, for as long as the block runs."""
    ended = threading.Event()

    def work() -> None:
        tables = CLOSED.split("\n\n")
        while not ended.is_set():
            with path.open("w") as file:
                for table in tables:
                    file.write(f"{table}\n\n")
                    file.flush()

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_a_file_that_is_rewritten_in_a_loop_lets_nobody_in(
    closed: kvblock.EmbeddedServer, access: Path
) -> None:
    with (
        kvblock.connect(closed.address, token=TOKENS["trainer"], engine="vllm-0") as trainer,
        kvblock.connect(closed.address, token=TOKENS["operator"]) as operator,
        trainer.session() as session,
        rewritten_in_a_loop(access),
    ):
        for number in range(CALLS):
            assert is_closed(closed)
            session.step(allocate=[number % 8], free=[number % 8] if number >= 8 else ())
            assert operator.list_pools()


def cut_to(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def replaced_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def replaced_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def given_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    os.chown(path, 12_345, -1)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (cut_to(""), "does not end with the line [end]"),
    "cut at a table": (cut_to(CLOSED.rpartition("[[identity]]")[0]), "does not end with the line"),
    "cut before its end": (cut_to(CLOSED.replace("[end]\n", "")), "does not end with the line"),
    "without identities": (cut_to(whole("", "trusted")), "there is no [[identity]]"),
    "without unix": (cut_to(CLOSED.replace('unix = "token"', "")), "unix: is not given"),
    "wrong": (cut_to(f"{CLOSED}[[identity]]\n[end]"), "no valid TOML"),
    "nested without end": (cut_to("unix = " + "[" * 100_000 + "\n[end]"), "nested deeper than"),
    "huge": (lambda path: os.truncate(path, 2**40), "is longer than 1048576 bytes"),
    "open to others": (lambda path: path.chmod(0o644), "has mode 0644"),
    "another user's": (given_away, "belongs to user 12345"),
    "gone": (Path.unlink, "No such file or directory"),
    "a FIFO": (replaced_by_fifo, "is a FIFO; must be a regular file"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_an_access_file_that_cannot_be_used_changes_nothing(
    closed: kvblock.EmbeddedServer, access: Path, how: str
) -> None:
    damage, told = DAMAGE[how]
    with (
        kvblock.connect(closed.address, token=TOKENS["trainer"], engine="vllm-0") as trainer,
        kvblock.connect(closed.address, token=TOKENS["operator"], timeout=20.0) as operator,
        trainer.session() as session,
    ):
        with follows(closed, REFUSED):
            damage(access)
        assert is_closed(closed)
        session.step(allocate=[1])
        assert operator.list_pools()
        assert told in closed.stderr
        assert closed.stderr.count(REFUSED) == 1
        access.unlink(missing_ok=True)
        rewrite(closed, access, IDENTITIES.replace(TOKENS["operator"], TOKENS["hasty"]), "token")
        session.step(allocate=[2])
        with pytest.raises(kvblock.UnauthenticatedError):
            operator.list_pools()


@pytest.mark.parametrize("how", ["empty", "nested without end", "another user's", "a FIFO"])
def test_an_access_file_that_cannot_be_used_refuses_the_start(access: Path, how: str) -> None:
    damage, told = DAMAGE[how]
    access.write_text(CLOSED)
    damage(access)
    with spawned("--listen", "127.0.0.1:0", "--access-file", access) as server:
        assert server.first_line() == ""
        assert server.end() == 2
        (line,) = server.log().splitlines()
        assert f"access_file {access}: " in line
        assert told in line


TLS_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    how: DAMAGE[how] for how in ("another user's", "a FIFO", "huge", "gone")
} | {"a directory": (replaced_by_directory, "is a directory; must be a regular file")}


def path_in(flags: list[str], setting: str) -> Path:
    """The file that a flag of a server names."""
    return Path(flags[flags.index(f"--{setting.replace('_', '-')}") + 1])


@pytest.mark.parametrize("setting", ["tls_cert", "tls_key", "tls_client_ca"])
def test_certificates_that_cannot_be_used_change_nothing(
    guarded: Guarded, files: Files, setting: str
) -> None:
    flags = files.serve_flags(client_ca=True)
    server = guarded(*flags)
    ca = files.folder / "trusted.pem"
    ca.write_bytes(files.ca.read_bytes())
    tls = files.show("trainer-1.example")._replace(ca=ca)
    path = path_in(flags, setting)
    kept = path.read_bytes()
    for damage, told in TLS_DAMAGE.values():
        if damage is given_away and os.geteuid() != 0:
            continue
        with follows(server, REFUSED):
            damage(path)
        with kvblock.connect(port_of(server), tls=tls, timeout=20.0) as kv:
            assert kv.can_allocate()
        assert f"{setting} {path}: {told}" in server.stderr
        with follows(server, TAKEN_UP):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            path.write_bytes(kept)
    with kvblock.connect(port_of(server), tls=tls, timeout=20.0) as kv:
        assert kv.can_allocate()


@pytest.mark.parametrize("setting", ["tls_cert", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize("how", ["another user's", "a FIFO"])
def test_a_certificate_that_cannot_be_used_refuses_the_start(
    files: Files, setting: str, how: str
) -> None:
    damage, told = TLS_DAMAGE[how]
    flags = files.serve_flags(client_ca=True)
    path = path_in(flags, setting)
    damage(path)
    with spawned("--listen", "127.0.0.1:0", *flags) as server:
        assert server.first_line() == ""
        assert server.end() == 2
        (line,) = server.log().splitlines()
        assert f"{setting} {path}: {told}" in line


def test_a_configuration_that_cannot_be_used_refuses_the_start(tmp_path: Path) -> None:
    file, fifo = tmp_path / "kvblock.toml", tmp_path / "fifo"
    file.write_text("grace = " + "[" * 100_000)
    os.mkfifo(fifo)
    for path, told in ((file, "nested deeper than"), (fifo, "is a FIFO")):
        with spawned("--listen", "127.0.0.1:0", "--config", path) as server:
            assert server.first_line() == ""
            assert server.end() == 2
            assert f"{path}: " in server.log()
            assert told in server.log()
            assert "Traceback" not in server.log()
