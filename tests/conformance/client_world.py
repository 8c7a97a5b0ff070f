"""What is around a client in a vector: a server and its files, a relay before it, other callers.

A vector in vectors_of_clients/*.yaml has a `name`, its `lines` (see client_lines), and a world:

    pools, flags    those of the server
    listens         `unix` alone, or also `tcp`, or `tls`, or `mtls`, which asks for certificates
    relay           `unix` or `tcp`: there a relay that can cut connections, to the server's socket
    connect         what the client `c` is made with, if not with `address: $address` alone
    access, env     the server's access file; variables of the server
    client_env      variables of the driver, which is one of its own then

A row without `do` is a deed of the world, one of the methods of `World` that end in a line here:

    kill, start, drain      SIGKILL; a new process with the journal of the one before; SIGTERM
    stop, go_on             SIGSTOP, SIGCONT
A row without `do` is a deed of the world, named as the method of `World` that carries it out:
                            with its connection; wait until they are lost
    other                   calls of somebody else, {METHOD: request}
    seen                    such a call, with `answer`: what is said of it becomes so

`$address`, `$tcp`, `$tls`, `$relay`, `$ca`, `$cert`, `$key` and `$folder` stand for what is in this
world, `$e` for the epoch that the last attach of engine `e` was given, by whomever it was made.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import yaml
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

import kvblock
from tests.conformance.bench import METHODS, path_of
from tests.conformance.cases import Json
from tests.conformance.client_answers import expected, in_form, part
from tests.conftest import check_ended_well
from tests.integration.access.certificates import Files
from tests.integration.proxy import Proxy
from tests.logs import no_faults
from tests.waiting import happens

POOL = "main:total=8,block_size=16,device=7,quarantine=0"


@dataclass(frozen=True)
class Script:
    """One vector of clients."""

    name: str
    lines: list[Json]
    pools: list[str] = field(default_factory=lambda: [POOL])
    flags: list[str] = field(default_factory=list)
    listens: str = "unix"
    relay: str | None = None
    connect: Json = field(default_factory=dict)
    access: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    client_env: dict[str, str] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML in which `on` is a word and no truth value."""


_Loader.yaml_implicit_resolvers = {
    first: [row for row in rows if row[0] != "tag:yaml.org,2002:bool" or first not in "oO"]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load() -> Iterator[Script]:
    """Every vector of clients."""
    for path in sorted(Path(__file__).with_name("vectors_of_clients").glob("*.yaml")):
        for row in yaml.load(path.read_text(encoding="utf-8"), _Loader):
            yield Script(**row)


class World:
    """It is there while its `with` block is entered."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._epochs: dict[str, int] = {}
        self._files: dict[str, str] = {}
        self._flags = list(script.flags)
        self._port = "0"
        self._server: kvblock.EmbeddedServer | None = None
        self._relay: Proxy | None = None

    def __enter__(self) -> "World":
        with ExitStack() as stack:
            # The path of a socket has to be short.
            folder = Path(tempfile.mkdtemp(prefix="kvblock-world-"))
            stack.callback(shutil.rmtree, folder)
            self._make_files(folder)
            self.start()
            stack.callback(lambda: self._server and self._server.stop())
            if self._script.relay:
                relay = Proxy(self._files["address"], Random(0), tcp=self._script.relay == "tcp")
                self._relay = stack.enter_context(relay)
                self._files["relay"] = relay.address
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._stack:
            if error is not None or self._server is None:
                return
            if self._script.access is None:
                check_ended_well(self._server)
            else:
                assert self._server.stop() == 0
                no_faults(self._server.stderr)

    def act(self, deed: Json) -> None:
        """Let something happen."""
        for name, given in deed.items():
            getattr(self, name)(*([] if given is None else [given]))

    def filled(self, value: Any) -> Any:
        """A line with what is in this world in place of what stands for it."""
        if isinstance(value, dict):
            return {key: self.filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.filled(one) for one in value]
        if isinstance(value, str) and value.startswith("$"):
            name = value[1:]
            return self._files[name] if name in self._files else str(self._epochs[name])
        return value

    def learn(self, attached: Json) -> None:
        """Remember the epoch that an attach was given."""
        self._epochs[attached["engine"]] = int(attached["lease"]["epoch"])

    def start(self) -> None:
        """Start the server, with the state of the one before."""
        script = self._script
        listen = ["--listen", f"{self._files['address']}"]
        if script.listens != "unix":
            listen += ["--listen", f"127.0.0.1:{self._port}"]
        flags = [*listen, "--state-dir", self._files["state"], *self._flags]
        server = kvblock.EmbeddedServer(script.pools, flags, env=script.env)
        server.start()
        self._server = server
        if len(server.addresses) > 2:
            self._port = server.addresses[2].rpartition(":")[2]
            self._files["tcp"] = f"127.0.0.1:{self._port}"
            self._files["tls"] = f"localhost:{self._port}"

    def kill(self) -> None:
        """End the server at once."""
        self._signal(signal.SIGKILL)
        self._running.process.wait()
        self._running.stop()

    def drain(self) -> None:
        """End the server in order."""
        self._signal(signal.SIGTERM)
        assert self._running.process.wait(60) == 0
        self._running.stop()

    def stop(self) -> None:
        """Let the server stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def cut(self) -> None:
        """Cut all connections of the relay."""
        assert self._relay is not None
        self._relay.cut()

    def lose(self, count: int) -> None:
        """Lose the next frames of answers."""
        assert self._relay is not None
        self._relay.loses_next = count

    def lost(self) -> None:
        """Return when those frames were lost."""
        relay = self._relay
        assert relay is not None
        happens(lambda: not relay.loses_next)

    def other(self, call: Json) -> None:
        """A call of somebody else, which has to succeed."""
        self._call(call)

    def seen(self, asked: Json) -> None:
        """Return when a call is answered so."""
        answer = asked["answer"]
        (method,) = asked.keys() - {"answer"}
        line = {"do": "call", "method": method}

        def is_so() -> bool:
            found = json_format.MessageToDict(
                self._call({method: asked[method]}), preserving_proto_field_name=True
            )
            return part(in_form(line, found), expected(line, self.filled(answer)))

        happens(is_so)

    def _call(self, call: Json) -> Message:
        ((method, request),) = call.items()
        described = METHODS[method]
        message = json_format.ParseDict(
            self.filled(request), message_factory.GetMessageClass(described.input_type)()
        )
        with grpc.insecure_channel(self._files["address"]) as channel:
            start = channel.unary_unary(
                f"/{path_of(method)}",
                request_serializer=type(message).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(
                    described.output_type
                ).FromString,
            )
            answer: Any = start(message, timeout=60, wait_for_ready=True)
        if method == "AttachEngine":
            self._epochs[request["engine"]] = answer.lease.epoch
        return answer  # type: ignore[no-any-return]

    def _make_files(self, folder: Path) -> None:
        script = self._script
        memory = folder / "memory"
        memory.mkdir()
        self._files |= {
            "folder": str(folder),
            "address": f"unix:{folder}/server.sock",
            "state": str(folder / "state"),
        }
        if any("memory=shm" in pool for pool in script.pools):
            self._flags += ["--memory-dir", str(memory)]
        if script.access is not None:
            file = folder / "access.toml"
            file.touch(mode=0o600)
            file.write_text(script.access)
            self._flags += ["--access-file", str(file)]
        if script.listens in ("tls", "mtls"):
            files = Files(folder)
            self._flags += files.serve_flags(client_ca=script.listens == "mtls")
            cert, key = files.issue("client", "engine.example")
            self._files |= {"ca": str(files.ca), "cert": str(cert), "key": str(key)}

    @property
    def _running(self) -> kvblock.EmbeddedServer:
        assert self._server is not None
        return self._server

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self._running.process.pid, number)
