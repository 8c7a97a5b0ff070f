"""How commands end whose output nobody can have."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import kvblock
from kvblock_cli.app import make_app
from tests.integration.cli.console import KVBLOCK
from tests.integration.processes import plain_environment, serving
from tests.integration.spawned import LAST_RESORT

UNWRITABLE = 4
FULL, CLOSED = ">/dev/full", ">&-"
PROBLEMS = {FULL: "No space left on device", CLOSED: "it is closed"}
CHANGED = "; the call was carried out"

ASK = (
    "stats",
    "pools",
    "sequences",
    "sequences --json",
    "audit",
    "blocks",
    "blocks --json",
    "engines",
    "engines --json",
    "holder 0",
    "table 1",
    "can-allocate 1",
    "allocate 9 65",
    "top --interval 0.05",
    "doctor",
)
CHANGE = (
    "allocate 2 1 --json",
    "allocate 3 1",
    "free 2",
    "free 3 --json",
    "pool create side 4",
    "pool delete side --yes",
    "reclaim holding --yes",
)
DRAIN = "drain --yes"
ALONE = (
    "--version",
    "--help",
    "stats --help",
    "serve --pool a:total=1 --listen unix:nowhere.sock --ephemeral --check",
    "serve --pool a:total=1 --listen unix:nowhere.sock --ephemeral --check --json",
    "trace generate --output - --requests 3",
    "replay --limit 1 --mode shared",
    "replay --limit 1 --mode shared --json",
)
OF_A_JOURNAL = ("journal verify", "journal dump", "journal export")
CHANGE_A_JOURNAL = ("journal discard", "journal set-aside")
OF_MEMORY = ("memory list", "memory clean")


def ended(command: str, redirection: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with a shell's redirection."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *KVBLOCK, *command.split()],
        env=plain_environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def check(command: str, redirection: str, fate: str, **variables: str) -> None:
    done = ended(command, redirection, **variables)
    problem = PROBLEMS[redirection]
    told = f"error: the output cannot be written to stdout: {problem}{fate}\n"
    assert done.stderr.endswith(told), (command, done.stderr)
    if "replay" not in command:
        assert done.stderr == told, command
    assert done.returncode == UNWRITABLE, command


@pytest.fixture
def address() -> Iterator[str]:
    """A server whose pool of 64 blocks two engines use."""
    serve = (*KVBLOCK, "serve", "--pool", "main:total=64", "--listen", "127.0.0.1:0")
    with serving(*serve) as (address,):
        with kvblock.connect(address, timeout=30.0) as kv:
            kv.allocate(1)
        with kvblock.connect(address, timeout=30.0, engine="holding") as kv:
            kv.allocate(1)
        yield address


def test_an_answer_that_cannot_be_written(address: str) -> None:
    for command in ASK:
        check(command, FULL, "", KVBLOCK_ADDRESS=address)
    for command in CHANGE:
        check(command, FULL, CHANGED, KVBLOCK_ADDRESS=address)


def test_a_drain_that_cannot_be_told() -> None:
    with kvblock.EmbeddedServer() as server:
        check(DRAIN, FULL, CHANGED, KVBLOCK_ADDRESS=server.address)
        assert server.process.wait(timeout=LAST_RESORT) == 0


def test_an_answer_to_a_stdout_that_is_closed(address: str) -> None:
    check("stats", CLOSED, "", KVBLOCK_ADDRESS=address)
    check("blocks --json", CLOSED, "", KVBLOCK_ADDRESS=address)
    check("allocate 2", CLOSED, CHANGED, KVBLOCK_ADDRESS=address)
    check("--help", CLOSED, "")


@pytest.mark.parametrize("command", ALONE)
def test_output_that_cannot_be_written(command: str) -> None:
    check(command, FULL, "")


def test_a_journal_that_cannot_be_written_out(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with kvblock.EmbeddedServer(["main:total=8"], ["--state-dir", state]) as server:
        with kvblock.connect(server.address) as kv:
            kv.allocate(1)
        assert server.stop() == 0
    for command in OF_A_JOURNAL:
        check(f"{command} {state}", FULL, "")
    check(f"journal discard {state} --pool main --yes", FULL, CHANGED)
    check(f"journal set-aside {state} --yes", FULL, CHANGED)
    (tmp_path / "kvblock-1-a-main.owner").touch()
    check(f"memory list --memory-dir {tmp_path}", FULL, "")
    check(f"memory clean --memory-dir {tmp_path} --yes", FULL, CHANGED)


def test_every_command_is_tried_here() -> None:
    alone = (DRAIN, *ALONE, *OF_A_JOURNAL, *CHANGE_A_JOURNAL, *OF_MEMORY)
    tried = " ".join((*ASK, *CHANGE, *alone))
    for name in leaves(typer.main.get_command(make_app())):
        assert name in tried, name


def leaves(group: Any, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        if hasattr(command, "commands"):
            yield from leaves(command, path)
        else:
            yield path


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    for command in (
        "trace generate --requests 3 --output /dev/full",
        "replay --limit 1 --mode shared --output /dev/full",
    ):
        done = ended(command, "")
        assert done.stderr == "error: /dev/full: No space left on device\n"
        assert done.returncode == UNWRITABLE


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_an_error_that_cannot_be_written_keeps_its_code(redirection: str) -> None:
    assert ended("stats", redirection, KVBLOCK_ADDRESS="unix:/nowhere.sock").returncode == 3
    assert ended("stats", redirection, KVBLOCK_ADDRESS="nonsense").returncode == 2
    assert ended("--version", f"{redirection} >/dev/full").returncode == UNWRITABLE
    assert ended("--version", redirection).stdout.startswith("kvblock ")


def test_a_reader_that_is_gone_is_told_nothing(address: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    for command in ("allocate 5", "stats", "--help"):
        done = subprocess.run(
            [*KVBLOCK, *command.split()],
            env=plain_environment() | {"KVBLOCK_ADDRESS": address},
            stdout=writes,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (141, b""), command
    os.close(writes)


def test_a_stdout_that_does_not_block_is_waited_for() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    command = "trace generate --output - --requests 5000"
    with subprocess.Popen([*KVBLOCK, *command.split()], stdout=writes) as process:
        os.close(writes)
        with open(reads) as reader:
            lines = reader.read().splitlines()
    assert process.returncode == 0
    assert len(lines) == 5001


def test_a_command_without_stdin() -> None:
    told = ended("audit --from -", "<&-", KVBLOCK_ADDRESS="unix:/nowhere.sock")
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert json.loads(ended("serve --pool a:total=1 --check --json", "<&-").stdout)
