"""Every command that talks to a server can show credentials, and is let in by them."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServerFactory
from tests.integration.access.conftest import POOLS, TOKENS
from tests.integration.cli.conftest import here
from tests.integration.cli.every_command import LOCAL, TALKS, Here, commands

__all__ = ["here"]

CREDENTIALS = {"token_file", "tls", "tls_ca", "tls_cert", "tls_key"}


def test_every_command_is_known() -> None:
    assert set(commands()) == {*TALKS, *LOCAL}


@pytest.mark.parametrize("command", TALKS)
def test_every_command_that_talks_to_a_server_takes_credentials(command: str) -> None:
    options = set(inspect.signature(commands()[command]).parameters)
    assert options >= CREDENTIALS | {"address", "as_json"}


@pytest.mark.parametrize("command", LOCAL)
def test_no_other_command_takes_some(command: str) -> None:
    # A server has a certificate and a key of its own.
    options = set(inspect.signature(commands()[command]).parameters) - {"tls_cert", "tls_key"}
    assert not options & CREDENTIALS


def test_every_command_is_let_in_by_its_token_only(
    server_factory: ServerFactory, access: Path, tmp_path: Path, here: Here
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKENS["operator"])
    token.chmod(0o600)
    flags = ["--listen", "127.0.0.1:0", "--default-pool", "gpu0", "--access-file", str(access)]
    server = server_factory(POOLS, flags)
    address = server.addresses[1]
    for command, arguments in TALKS.items():
        where = ("--address", address)
        without = here.run(command, *arguments, *where, "--json")
        told = json.loads(without.out)
        if command == "doctor":
            assert {"access"} == problems_in(told)
            assert (without.code, "no credentials were shown" in without.out) == (1, True)
        else:
            assert (without.code, told["reason"]) == (1, "UNAUTHENTICATED"), command
            assert "no credentials were shown" in told["message"]
        let_in = here.run(command, *arguments, *where, "--token-file", str(token), "--json")
        refused = command == "reclaim"
        assert let_in.code == int(refused), (command, let_in)
        assert json.loads(let_in.out).get("reason") == ("ENGINE_NOT_FOUND" if refused else None)
    assert server.process.wait(timeout=60) == 0  # `drain` is the last one.


def problems_in(report: Any) -> set[str]:
    return {one["check"] for one in report["checks"] if one["status"] == "problem"}
