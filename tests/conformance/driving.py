"""The runner's side of a driver, and which drivers this machine can run.

`TEST_DRIVERS=protoc` leaves it at the one on fresh Python stubs, which takes least time.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tests.conformance.cases import Expected, Json

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
FILES = [str(path.relative_to(PROTOS)) for path in sorted(PROTOS.rglob("*.proto"))]
DOMAIN = "kvblock.v1"
GO = Path(__file__).with_name("drivers") / "go"
GO_OPT = "opt=module=kvblock"
GO_PLUGINS = [
    "google.golang.org/protobuf/cmd/protoc-gen-go",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
]


class Outcome(NamedTuple):
    """What came of a call: its answers, and its status in the words of a vector."""

    answers: list[Json]
    status: Expected


class Driver:
    """A running driver."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, address: str, method: str, messages: list[Json], linger: bool = False) -> None:
        """Let it begin a call."""
        call = {"address": address, "method": method, "messages": messages, "linger": linger}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Outcome:
        """What came of the call that was begun."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the driver {self._process.args!r} has ended"
        outcome = json.loads(line)
        return Outcome(
            outcome["answers"],
            read_status(outcome["code"], b64decode(outcome["details"]), outcome["trailers"]),
        )


def read_status(code: str, details: bytes, trailers: Mapping[str, str]) -> Expected:
    """A status with its details, which have to be those that the contract names.

    Its plain trailers have to say the same as the details.
    """
    then = trailers.get("kvblock-then")
    if not details:
        assert "kvblock-reason" not in trailers
        return Expected(code, then=then)
    status = Status.FromString(details)
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    kinds: list[tuple[ErrorInfo | BadRequest | RetryInfo, str]] = [
        (info, "google.rpc.ErrorInfo"),
        (bad, "google.rpc.BadRequest"),
        (retry, "google.rpc.RetryInfo"),
    ]
    packed: dict[str, AnyMessage] = {one.TypeName(): one for one in status.details}
    assert len(packed) == len(status.details)
    for message, name in kinds:
        if name in packed:
            assert packed.pop(name).Unpack(message)
    assert not packed, f"unknown details: {', '.join(packed)}"
    assert info.domain == DOMAIN
    assert status.message, "an error says what to do"
    delay = retry.retry_delay
    milliseconds = None
    if retry.HasField("retry_delay"):
        milliseconds = str(-(-delay.ToNanoseconds() // 1_000_000))
    assert trailers.get("kvblock-reason") == info.reason
    assert trailers.get("kvblock-retry-after-ms") == milliseconds
    pushback = milliseconds if then == "repeat" else "-1"
    assert trailers.get("grpc-retry-pushback-ms") == pushback
    assert then is not None, "every error says what to do"
    return Expected(
        code,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=[one.field for one in bad.field_violations],
        retry=delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None,
        then=then,
    )


@contextmanager
def running(command: Sequence[str | Path], **environment: str) -> Iterator[Driver]:
    """A driver that ends with the block, and by itself."""
    env = os.environ | environment
    with subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Driver(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait() == 0


def protoc(*outputs: str, path: str = "") -> None:
    """Run stock protoc over protos/, with plugins from `path` besides the usual ones."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, *FILES]
    env = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, check=True, env=env)


def made_once(folder: Path, make: Callable[[Path], None]) -> None:
    """Make what is in a folder, unless another process of this run of the tests has made it."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            make(folder)
            (folder / "made").touch()


def _make_python_stubs(folder: Path) -> None:
    protoc(f"--python_out={folder}", f"--grpc_python_out={folder}")
    for package in ("kvblock", "kvblock/v1"):
        (folder / package / "__init__.py").touch()


@contextmanager
def python_on_protoc(folder: Path) -> Iterator[Driver]:
    """Stubs that are made now, in front of the installed ones."""
    made_once(folder, _make_python_stubs)
    command = [sys.executable, "-m", "tests.conformance.drivers.protoc"]
    with running([*command, folder], PYTHONPATH=str(folder)) as driver:
        yield driver


@contextmanager
def python_on_reflection(_: Path) -> Iterator[Driver]:
    """No stubs at all."""
    with running([sys.executable, "-m", "tests.conformance.drivers.reflection"]) as driver:
        yield driver


def _make_go_driver(folder: Path) -> None:
    shutil.copytree(GO, folder, dirs_exist_ok=True)
    tools, driver = folder / "tools", folder / "driver"
    tools.mkdir(exist_ok=True)
    env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    build = ["go", "build", "-o"]
    subprocess.run([*build, f"{tools}/", *GO_PLUGINS], cwd=folder, env=env, check=True)
    into = (f"--{name}_{rest}" for name in ("go", "go-grpc") for rest in (f"out={folder}", GO_OPT))
    protoc(*into, path=str(tools))
    subprocess.run([*build, driver, "."], cwd=folder, env=env, check=True)


@contextmanager
def go_on_protoc(folder: Path) -> Iterator[Driver]:
    """Stubs that are made now, and a driver that is built on them."""
    made_once(folder, _make_go_driver)
    with running([folder / "driver"]) as driver:
        yield driver


def why_no_go() -> str | None:
    """What is missing for the Go driver; None when nothing is."""
    if shutil.which("go") is None:
        return "there is no go"
    found = re.search(r"go version go(\d+)\.(\d+)", subprocess.getoutput("go version"))
    needed = re.search(r"^go (\d+)\.(\d+)", (GO / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None
    if found is None or tuple(map(int, found.groups())) < tuple(map(int, needed.groups())):
        return f"go is older than {needed[0]}"
    return None


DRIVERS: dict[str, Callable[[Path], AbstractContextManager[Driver]]] = {
    "protoc": python_on_protoc,
    "reflection": python_on_reflection,
}
if os.environ.get("TEST_DRIVERS") == "protoc":
    del DRIVERS["reflection"]
elif reason := why_no_go():
    warnings.warn(f"the vectors run without the Go driver: {reason}", stacklevel=1)
else:
    DRIVERS["go"] = go_on_protoc
