"""What takes something away asks first, demands --yes where nobody can be asked, and spares the
living unless it is forced."""

import json
import re
from pathlib import Path

import pytest

import kvblock
from tests.conftest import ServerFactory
from tests.integration.cli.console import Console

LONG = 3600.0

TAKING = {
    "reclaim": ("reclaim", "a"),
    "pool delete": ("pool", "delete", "small"),
    "drain": ("drain",),
    "journal discard": ("journal", "discard", "--pool", "main"),
    "journal set-aside": ("journal", "set-aside"),
    "memory clean": ("memory", "clean"),
}


@pytest.mark.parametrize("command", TAKING)
def test_without_a_terminal_yes_is_demanded(console: Console, tmp_path: Path, command: str) -> None:
    console.out("allocate", 10, 2, "--engine", "a")
    arguments = [*TAKING[command], *([str(tmp_path)] if "journal" in command else [])]
    told = console.error(*arguments, expect=2).splitlines()
    assert told[0].endswith(", and there is no terminal to ask on")
    assert told[1] == "hint: --yes says that it is meant"
    answer = json.loads(console.out(*arguments, "--json", expect=2))
    assert (answer["exit_code"], answer["hint"]) == (2, "--yes says that it is meant")
    assert "2 blocks" in console.out("table", 10, "--engine", "a")


@pytest.mark.parametrize("command", ["pool delete", "drain"])
def test_on_a_terminal_somebody_is_asked(server_factory: ServerFactory, command: str) -> None:
    server = server_factory(["main:total=64", "small:total=3"])
    console = Console(server.address)
    done = console.typed("n", *TAKING[command])
    assert done.stderr.endswith("? [y/N] ")
    assert (done.returncode, done.stdout) == (1, "nothing was changed\n")
    done = console.typed("", *TAKING[command], "--json")
    assert json.loads(done.stdout)["message"] == "nothing was changed"
    done = console.typed("y", *TAKING[command])
    assert done.returncode == 0
    assert "nothing was changed" not in done.stdout
    if command == "drain":
        assert server.process.wait(timeout=60) == 0


def test_nobody_is_asked_about_an_engine_that_is_not_there(console: Console) -> None:
    done = console.typed("y", "reclaim", "nobody")
    told = "error: engine 'nobody' has neither a block nor a lease in pool 'main'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_a_living_engine_is_reclaimed_by_force_only(console: Console) -> None:
    with (
        kvblock.connect(console.address, engine="a") as kv,
        kv.attach_engine(ttl=LONG) as lease,
    ):
        kv.allocate(10, 2)
        told = console.error("reclaim", "a", "--yes", expect=1).splitlines()
        alive = "engine 'a' in pool 'main' is alive: its last heartbeat was"
        assert re.match(
            rf"error: {alive} \d+\.\d s ago, and its lease expires in \d+\.\d s", told[0]
        )
        assert told[1].startswith("hint: --force ")
        told = console.error("reclaim", "a", "--epoch", lease.epoch, "--yes", expect=1).splitlines()
        assert alive in told[0]
        answer = json.loads(console.out("reclaim", "a", "--yes", "--json", expect=1))
        assert (answer["reason"], answer["exit_code"]) == ("ENGINE_ATTACHED", 1)
        # Nobody is asked about what is not going to happen.
        done = console.typed("y", "reclaim", "a")
        assert (done.returncode, done.stdout) == (1, "")
        assert "its last heartbeat was" in done.stderr
        assert "Take them?" not in done.stderr
        assert lease.lease_valid
        assert len(kv.get_block_table(10).block_numbers) == 2
        done = console.typed("n", "reclaim", "a", "--force")
        assert re.search(r"has a lease for .* its last heartbeat was .* Take them\?", done.stderr)
        assert done.returncode == 1
        taken = console.out("reclaim", "a", "--force", "--yes")
        assert taken == "reclaimed 2 blocks of engine a\n"
