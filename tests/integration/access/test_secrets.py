"""No secret comes out: not in a log, in --check, in a span, in a message or in a process list."""

import json
import os
import socket
from pathlib import Path

import pytest
from h2.events import ResponseReceived, TrailersReceived

import kvblock
from tests.conformance.bench import path_of
from tests.fuzz.frames import call, client
from tests.integration.access.certificates import Files
from tests.integration.access.conftest import (
    IDENTITIES,
    REFUSED,
    TOKENS,
    Guarded,
    follows,
    port_of,
    rewrite,
    write,
)
from tests.integration.cli.console import KVBLOCK, Console
from tests.integration.docs.test_references import flags_by_command
from tests.integration.processes import run
from tests.integration.spawned import spawned
from tests.integration.telemetry.receiver import receiving
from tests.waiting import LAST_RESORT

WRONG = "wrong-token-wrong-token"
SECRETS = (*TOKENS.values(), WRONG, "PRIVATE KEY")
SERVE = ("serve", "--pool", "gpu0:total=8")


def clean(*texts: str) -> None:
    for text in texts:
        for secret in SECRETS:
            assert secret not in text


def test_check_shows_paths_and_reads_the_files(files: Files, access: Path, tmp_path: Path) -> None:
    listen = ("--listen", f"unix:{tmp_path}/kv.sock")
    flags = [*files.serve_flags(client_ca=True), "--access-file", str(access)]
    check = [*KVBLOCK, *SERVE, *listen, *flags, "--check"]
    shown = run(*check, "--json").stdout
    assert json.loads(shown)["config"]["access_file"] == str(access)
    assert json.loads(shown)["config"]["tls_key"] == str(files.folder / "server.key")
    clean(shown, run(*check).stdout)
    access.chmod(0o644)
    done = run(*check, expect=2)
    assert "has mode 0644, with which others could read or change it" in done.stderr
    clean(done.stdout, done.stderr)
    write(access, f'[[identity]]\nname = "x"\ntoken = "short"\ntokn = "{WRONG}"\n')
    done = run(*check, expect=2)
    assert "identity[0].token: must have at least 16 characters" in done.stderr
    assert "identity[0].tokn: no such key" in done.stderr
    assert "short" not in done.stderr
    clean(done.stdout, done.stderr)


@pytest.mark.usefixtures("fresh_starts")
def test_nothing_that_a_server_says_or_sends_holds_a_secret(
    guarded: Guarded, files: Files, access: Path
) -> None:
    with receiving() as receiver:
        env = {
            **receiver.env,
            "OTEL_METRICS_EXPORTER": "none",
        }
        server = guarded(*files.serve_flags(), "--log-level", "debug", env=env)
        command = Path(f"/proc/{server.process.pid}/cmdline").read_text()
        environment = Path(f"/proc/{server.process.pid}/environ").read_text()
        for token in (TOKENS["trainer"], WRONG, None):
            with kvblock.connect(port_of(server), token=token, tls=files.trust()) as kv:
                for call in (kv.can_allocate, kv.list_pools):
                    try:
                        call()
                    except kvblock.KVBlockError as error:
                        clean(str(error), repr(error), str(error.metadata))
        with follows(server, REFUSED):
            write(access, IDENTITIES.replace(TOKENS["trainer"], "short"))
        with kvblock.connect(port_of(server), token=TOKENS["trainer"], tls=files.trust()) as kv:
            assert kv.can_allocate()
        rewrite(server, access, IDENTITIES)
        server.stop()
        spans = str(receiver.spans)
    assert "CanAllocate" in spans
    assert "login failed" in server.stderr
    assert "must have at least 16 characters" in server.stderr
    assert "short" not in server.stderr
    clean(command, environment, server.stderr, spans)


def test_what_is_no_text_is_not_shown_either(guarded: Guarded) -> None:
    server = guarded("--log-level", "debug")
    token = (b"authorization", f"Bearer {TOKENS['trainer']}".encode() + b"\xff")
    stats = f"/{path_of('Stats')}".encode()
    assert status_of(server, call(stats, token)) == b"16"
    assert status_of(server, call(stats + token[1])) == b"2"
    server.stop()
    assert "a header or a method name is not UTF-8" in server.stderr
    assert "Traceback" not in server.stderr
    clean(server.stderr)


def test_callers_that_send_no_text_and_are_gone_are_one_line(guarded: Guarded) -> None:
    server = guarded()
    for _ in range(20):
        connection = client()
        for stream in range(1, 40, 2):
            connection.send_headers(stream, call(b"/\xff"), end_stream=True)
            connection.reset_stream(stream)
        with connected(server) as wire:
            wire.sendall(connection.data_to_send())
            wire.recv(1)
    server.stop()
    assert "the caller was gone before its error was sent" in server.stderr
    assert "Traceback" not in server.stderr


def status_of(server: kvblock.EmbeddedServer, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The gRPC status of a call that is opened with these headers, by hand."""
    connection = client()
    connection.send_headers(1, headers)
    connection.send_data(1, bytes(5), end_stream=True)
    with connected(server) as wire:
        wire.sendall(connection.data_to_send())
        while data := wire.recv(65_536):
            for event in connection.receive_data(data):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    status = dict(event.headers).get(b"grpc-status")
                    if status is not None:
                        return status
    raise AssertionError("the connection ended before the call")


def connected(server: kvblock.EmbeddedServer) -> socket.socket:
    """A connection to the server's port."""
    host, _, port = server.addresses[1].rpartition(":")
    return socket.create_connection((host, int(port)), LAST_RESORT)


def test_a_broken_access_file_refuses_the_start_and_stays_secret(access: Path) -> None:
    for text, told in (
        (f"token = {WRONG}", "no valid TOML"),
        (f'token = "{WRONG}"', "token: no such key"),
        (IDENTITIES + IDENTITIES, "there are two identities"),
        (IDENTITIES.replace('"trainer"\n', '"token"\n'), "must not be trusted or token"),
    ):
        write(access, text)
        with spawned("--listen", "127.0.0.1:0", "--access-file", access) as server:
            assert server.first_line() == ""
            assert server.end() == 2
            assert told in server.log()
            assert "Traceback" not in server.log()
            clean(server.log())


def test_no_command_takes_a_token_as_an_argument() -> None:
    for flags in flags_by_command().values():
        assert "--token" not in flags


def test_commands_take_their_credentials_from_files(
    guarded: Guarded, files: Files, tmp_path: Path
) -> None:
    server = guarded(*files.serve_flags())
    console = Console(port_of(server))
    tokens = {name: tmp_path / name for name in TOKENS}
    for name, path in tokens.items():
        path.write_text(f"{TOKENS[name]}\n")
    tls = ("--tls-ca", files.ca)
    out = console.out("audit", *tls, "--token-file", tokens["operator"])
    assert out.count("clean") == 2
    assert "granted 1 block" in console.out(
        "allocate", 1, *tls, "--engine", "vllm-0", "--token-file", tokens["trainer"]
    )
    told = console.error("pools", *tls, "--token-file", tokens["trainer"], expect=1)
    assert "identity 'trainer' may not call ListPools" in told
    told = console.error("pools", *tls, "--token-file", tokens["hasty"], expect=1)
    assert "the token is not known" in told
    assert "no server answers" in console.error("pools", expect=3)
    told = console.error("pools", "--token-file", tmp_path / "none", expect=2)
    assert told == f"error: --token-file {tmp_path}/none: No such file or directory\n"
    (tmp_path / "empty").write_text("\n")
    told = console.error("pools", "--token-file", tmp_path / "empty", expect=2)
    assert "has no token in it" in told
    os.mkfifo(tmp_path / "fifo")
    told = console.error("pools", "--token-file", tmp_path / "fifo", expect=2)
    assert told == f"error: --token-file {tmp_path}/fifo: is a FIFO; must be a regular file\n"
    if os.geteuid() == 0:
        os.chown(tokens["operator"], 12_345, -1)
        told = console.error("pools", *tls, "--token-file", tokens["operator"], expect=2)
        assert "belongs to user 12345; must belong to root" in told
    clean(told)


def test_a_token_does_not_leave_the_machine_in_the_clear() -> None:
    for address in ("192.0.2.1:50051", "kvblock.example:50051", "0.0.0.0:1", "[2001:db8::1]:1"):
        for kind in (kvblock.connect, kvblock.connect_async):
            with pytest.raises(kvblock.InvalidArgumentError) as caught:
                kind(address, token=WRONG)
            assert str(caught.value) == (
                f"token: (not shown) would go to {address} readable for everyone on the way; use"
                " TLS (tls=...)"
            )
            clean(str(caught.value.metadata), str(caught.value.violations))
    for address in ("unix:/x", "localhost:1", "127.0.0.2:1", "[::1]:1"):
        with kvblock.connect(address, token=WRONG) as kv:
            clean(repr(kv), repr(kv._settings))
    with pytest.raises(kvblock.InvalidArgumentError) as caught:
        kvblock.connect("localhost:1", token=f"{WRONG} \n")
    clean(str(caught.value))


def test_tls_that_cannot_be_is_told(files: Files) -> None:
    cert, key = files.issue("client", "a.example")
    fifo, huge = files.folder / "fifo", files.folder / "huge"
    os.mkfifo(fifo)
    huge.touch()
    os.truncate(huge, 2**40)
    for tls, told in (
        (kvblock.Tls(ca="/nowhere"), "tls.ca: '/nowhere' cannot be read: No such file"),
        (kvblock.Tls(ca=fifo), "cannot be read: is a FIFO; must be a regular file"),
        (kvblock.Tls(cert=fifo, key=key), "cannot be read: is a FIFO; must be a regular file"),
        (kvblock.Tls(cert=cert, key=fifo), "cannot be read: is a FIFO; must be a regular file"),
        (kvblock.Tls(ca=huge), "cannot be read: is longer than 1048576 bytes"),
        (kvblock.Tls(ca="a\0b"), "cannot be read: is no path of a file"),
        (kvblock.Tls(cert=cert), "tls.key: None must be given"),
        (kvblock.Tls(key=key), "tls.cert: None must be given"),
        (kvblock.Tls(cert=key, key=key), "must be a PEM file with a certificate"),
        (kvblock.Tls(cert=cert, key=cert), "must be a PEM file with a private key"),
    ):
        with pytest.raises(kvblock.InvalidArgumentError, match=told):
            kvblock.connect("localhost:1", tls=tls)
    with pytest.raises(kvblock.InvalidArgumentError, match="a Unix socket is plain"):
        kvblock.connect("unix:/x", tls=True)
