"""`kvblock serve`: what it says before it serves, and what it refuses."""

import json
import socket
from pathlib import Path

import pytest

from tests.integration.cli.console import KVBLOCK, Console
from tests.integration.processes import serving

SHELL = Console("")


def test_check_shows_every_setting_with_its_source_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "kvblock.toml"
    file.write_text("grace = 3\n[[pools]]\nname = 'main'\ntotal = 8\n")
    listen = f"unix:{tmp_path}/kv.sock"
    check = ("serve", "--check", "--config", file, "--listen", listen, "--engines-max", 5)
    lines = [line.split() for line in SHELL.out(*check).splitlines()]
    assert lines[0] == ["SETTING", "VALUE", "SOURCE"]
    assert ["pools", "main:total=8,block_size=16,device=0", str(file)] in lines
    assert ["listen", listen, "--listen"] in lines
    assert ["grace", "3.0", str(file)] in lines
    assert ["engines_max", "5", "--engines-max"] in lines
    assert ["metrics_listen", "none", "default"] in lines
    answer = json.loads(SHELL.out(*check, "--json"))
    assert set(answer["config"]) == set(answer["sources"]) == {line[0] for line in lines[1:]}
    assert answer["config"]["pools"] == [
        {
            "name": "main",
            "total": 8,
            "block_size": 16,
            "device": 0,
            "reserved": 0,
            "block_bytes": "0",
            "regions": 1,
            "layout": "",
            "memory": "none",
        }
    ]
    assert answer["sources"]["grace"] == str(file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("check", [["--check"], []])
def test_a_wrong_configuration_is_told_whole(check: list[str]) -> None:
    told = SHELL.error("serve", "--pool", "a:total=0", "--listen", "foo", *check, expect=2)
    assert told.splitlines() == [
        "error: the configuration has 2 problems:",
        "  --pool a:total=0: total 0 must be a whole number from 1 to 2147483647",
        "  --listen foo: must be unix:PATH, HOST:PORT or [IPv6]:PORT",
    ]


def test_nothing_to_serve_is_wrong_usage() -> None:
    told = SHELL.error("serve", expect=2)
    assert told == (
        "error: pools: not given; give at least one, for instance --pool NAME:total=BLOCKS\n"
    )


def test_json_goes_with_check() -> None:
    answer = json.loads(SHELL.out("serve", "--json", expect=2))
    assert "--json goes with --check" in answer["message"]


def test_a_port_that_is_taken_is_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = SHELL.error("serve", "--pool", "a:total=1", "--listen", address, expect=1)
    assert address in told


def test_a_limit_that_was_set_holds(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/kv.sock"
    flags = ("--pool", "only:total=9", "--listen", address, "--blocks-per-request-max", "5")
    with serving(*KVBLOCK, "serve", *flags) as addresses:
        assert addresses == [address]
        told = Console(address).error("allocate", 1, 6, expect=2)
    assert told == "error: num_blocks: 6 is more than blocks_per_request_max = 5\n"
