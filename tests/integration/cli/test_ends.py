"""How commands end when there is no server, no library, or no wish for colours."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.console import KVBLOCK, Console

COMMANDS = [
    ("stats",),
    ("stats", "--watch"),
    ("allocate", 1),
    ("free", 1),
    ("table", 1),
    ("can-allocate",),
    ("pools",),
    ("sequences",),
    ("audit",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(map(str, command)))
def test_no_server_is_exit_code_3(command: tuple[object, ...], tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/nobody.sock"
    told = Console(address).error(*command, expect=3).splitlines()
    assert told[0].startswith(f"error: no server answers at {address}: ")
    assert told[1].startswith("hint: is `kvblock serve` running?")
    assert len(told) == 2


def test_a_server_that_does_not_answer_is_exit_code_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = Console(f"127.0.0.1:{port}").error("stats", "--timeout", "0.2", expect=3)
    assert told.startswith("error: ")


def test_an_address_that_is_none_is_exit_code_2() -> None:
    assert "must be unix:PATH" in Console("nonsense").error("stats", expect=2)
    assert "must be unix:PATH" in Console("").error("stats", "--address", "foo", expect=2)


def test_colours_only_on_a_terminal_and_only_when_wanted(console: Console) -> None:
    green = "\x1b[32m"
    assert green in console.on_terminal("audit")
    assert green not in console.on_terminal("audit", NO_COLOR="1")
    assert "\x1b" not in console.out("audit")
    assert "\x1b" not in console.error("table", 1, expect=1)


def test_json_is_spread_over_lines_on_a_terminal_only(console: Console) -> None:
    assert console.out("pools", "--json").count("\n") == 1
    assert console.on_terminal("pools", "--json").count("\n") > 10


def test_version_and_help() -> None:
    shell = Console("")
    assert shell.out("--version").startswith("kvblock 0.")
    told = " ".join(shell.out("--help").split())
    for part in ("0 done", "1 refused", "2 wrong usage", "3 server unreachable"):
        assert part in told
    nothing = shell.run(expect=2)
    assert "Usage: kvblock" in nothing.stdout + nothing.stderr


def test_shell_completion() -> None:
    environment = os.environ | {
        "_KVBLOCK_COMPLETE": "complete_bash",
        "COMP_WORDS": "kvblock al",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(KVBLOCK, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["allocate"]


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", ["stats"], "cli"),
        ("rich", ["stats"], "cli"),
        ("typer", ["serve"], "server"),
        ("structlog", ["serve", "--pool", "a:total=1"], "server"),
        ("grpc_health", ["serve", "--pool", "a:total=1", "--check"], "server"),
    ],
)
def test_a_missing_library_names_the_extra(missing: str, arguments: list[str], extra: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['kvblock', *{arguments!r}]\n"
        "from kvblock_cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    told = done.stderr.splitlines()
    assert f"needs {missing}" in told[0]
    assert told[1:] == [f"hint: install this package with its `{extra}` extra"]
