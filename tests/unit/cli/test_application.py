"""The commands and their flags, as far as they can be judged without a server."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer

from kvblock_cli.app import make_app
from kvblock_cli.options import default_address
from kvblock_service.config import default_listen, load_settings
from kvblock_service.config.load import FLAGS

COMMANDS: dict[str, Any] = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
OURS = [
    "serve",
    "stats",
    "allocate",
    "free",
    "table",
    "can-allocate",
    "pools",
    "sequences",
    "audit",
    "blocks",
    "holder",
    "engines",
    "reclaim",
    "drain",
    "pool",
    "journal",
    "memory",
    "replay",
    "trace",
    "top",
    "doctor",
]


def options(command: str) -> dict[str, Any]:
    """The options of a command by their names."""
    return {name: option for option in COMMANDS[command].params for name in option.opts}


def test_every_command_is_there() -> None:
    assert set(OURS) <= set(COMMANDS)


@pytest.mark.parametrize("name", OURS)
def test_every_command_says_what_it_is_for(name: str) -> None:
    command = COMMANDS[name]
    first = command.help.splitlines()[0]
    assert len(first) <= 62, "wraps in the list of commands at 80 columns"
    if name not in ("trace", "journal", "memory"):
        assert f"Example: [bold]kvblock {name}" in command.epilog


@pytest.mark.parametrize("name", OURS[1:9])
def test_commands_that_ask_a_server_share_their_options(name: str) -> None:
    found = options(name)
    assert {"--address", "--timeout", "--json"} <= set(found)
    assert found["--address"].envvar == "KVBLOCK_ADDRESS"


def test_every_setting_has_a_flag_that_tells_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KVBLOCK_")]:
        monkeypatch.delenv(name)
    settings = load_settings({"pools": ["a:total=1"], "listen": ["unix:/a"]}).settings.as_toml()
    flags = options("serve")
    for name, default in settings.items():
        flag = flags[FLAGS[name]]
        assert flag.name == name
        told = re.search(r"\\\[default: ([^\]]*)\]", flag.help)
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            assert told is not None
            assert float(told[1]) == default, name
        if name.startswith("log_"):
            assert told is not None
            assert told[1] == default
        assert bool(flag.multiple) == (name in ("pools", "listen"))
        assert bool(flag.is_flag) == (name in ("insecure", "ephemeral"))
    not_settings = {"--config", "--check", "--json", "--help"}
    assert set(flags) - {FLAGS[name] for name in settings} - not_settings <= {"-h"}


def test_settings_and_grpc_are_loaded_only_where_they_are_needed() -> None:
    code = (
        "import sys\n"
        "import kvblock_cli\n"
        "sys.argv = ['kvblock', *sys.argv[1:]]\n"
        "try:\n    kvblock_cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print([name for name in ('grpc', 'kvblock_service.config') if name in sys.modules])\n"
    )
    shown = {}
    for arguments in ("--help", "stats --help", "serve --help"):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments.split()],
            check=True,
            capture_output=True,
            text=True,
        )
        shown[arguments] = done.stdout.splitlines()[-1]
    loaded = {"--help": "[]", "stats --help": "[]", "serve --help": "['kvblock_service.config']"}
    assert shown == loaded


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("directory", ["/run/user/1000", None])
def test_clients_look_where_servers_listen(
    monkeypatch: pytest.MonkeyPatch, user: int, directory: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if directory is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    assert default_address() == default_listen()
    assert (default_address() is None) == (user != 0 and directory is None)


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("unix:/tmp/kv.sock", "unix:/tmp/kv.sock"),
        ("127.0.0.1:0 127.0.0.1:50051 unix:/tmp/kv.sock", "127.0.0.1:50051"),
        ("127.0.0.1:0", "unix:/run/kvblock.sock"),
        (" ", "unix:/run/kvblock.sock"),
    ],
)
def test_clients_look_where_a_configured_server_listens(
    monkeypatch: pytest.MonkeyPatch, listen: str, found: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("KVBLOCK_LISTEN", listen)
    assert default_address() == found
