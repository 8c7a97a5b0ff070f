"""`kvblock replay` as its users run it: real commands, a real server, a real socket."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import kvblock
import pytest
from kvblock.replay.modes import Mode, make_setup

from tests.integration.processes import run

COMMAND = Path(sys.executable).with_name("kvblock")
BUNDLED = ("replay", "--limit", "30", "--blocks", "2048")


def kvblock_command(*arguments: str | Path, expect: int = 0) -> CompletedProcess[str]:
    return run(COMMAND, *arguments, expect=expect)


def replayed(tmp_path: Path, *arguments: str | Path) -> dict[str, Any]:
    file = tmp_path / "figures.json"
    kvblock_command(*BUNDLED, *arguments, "--json", file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture
def serving() -> Callable[..., kvblock.EmbeddedServer]:
    """Makes a server with the pools of a replay of 3 engines and so many blocks."""

    def make(blocks: int = 2048, block_size: int = 16) -> kvblock.EmbeddedServer:
        setups = [make_setup(mode, 3, blocks, block_size) for mode in Mode]
        return kvblock.EmbeddedServer([text for setup in setups for text in setup.definitions()])

    return make


def test_both_modes_on_a_server_of_its_own(tmp_path: Path) -> None:
    picture = tmp_path / "use.png"
    found = replayed(tmp_path, "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert found["parameters"] == {
        "trace": "bundled trace",
        "format": "azure",
        "requests": 30,
        "limit": 30,
        "engines": 3,
        "blocks": 2048,
        "block_size": 16,
        "modes": ["shared", "split"],
    }
    for mode in ("shared", "split"):
        assert found["virtual"][mode]["requests_finished"] == 30
        assert found["virtual"][mode]["makespan_s"] > 0
        assert found["measured"][mode]["rpc_latency_p50_ms"] > 0
        assert found["measured"][mode]["steps_per_second"] > 0


def test_virtual_figures_are_the_same_every_time(tmp_path: Path) -> None:
    first = replayed(tmp_path)
    again = replayed(tmp_path)
    assert first["virtual"] == again["virtual"]
    assert first["measured"] != again["measured"]


def test_sharing_beats_splitting_on_the_bundled_trace(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    kvblock_command("replay", "--json", file)
    virtual = json.loads(file.read_text())["virtual"]
    assert virtual["split"]["preemptions"] > 0
    assert virtual["shared"]["preemptions"] < virtual["split"]["preemptions"]
    assert virtual["shared"]["makespan_s"] < virtual["split"]["makespan_s"]
    assert virtual["shared"]["requests_finished"] == virtual["split"]["requests_finished"] == 360


def test_output_is_a_plain_table_without_a_terminal() -> None:
    done = kvblock_command(*BUNDLED, "--mode", "shared")
    assert done.stderr == ""
    assert "Requests finished" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith("Audit clean, nothing held.\n")


def test_json_on_standard_output_is_alone_there() -> None:
    done = kvblock_command(*BUNDLED, "--mode", "split", "--json", "-")
    assert list(json.loads(done.stdout)["virtual"]) == ["split"]
    assert "Requests finished" in done.stderr


def test_against_a_running_server(
    tmp_path: Path, serving: Callable[..., kvblock.EmbeddedServer]
) -> None:
    own = replayed(tmp_path)
    with serving() as server:
        elsewhere = replayed(tmp_path, "--address", server.address)
        with kvblock.connect(server.address) as client:
            assert [pool.held_blocks for pool in client.stats().pools] == [0, 0, 0, 0]
            assert all(client.audit())
            taken = {pool.pool: pool.allocated_blocks_total for pool in client.stats().pools}
            assert all(taken.values())
    assert elsewhere["virtual"] == own["virtual"]


def test_requests_too_large_for_a_share_are_skipped_there(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        '{"timestamp": 0, "input_length": 160, "output_length": 1}\n'
        '{"timestamp": 0, "input_length": 161, "output_length": 1}\n'
        '{"timestamp": 0, "input_length": 481, "output_length": 1}\n'
    )
    file = tmp_path / "figures.json"
    kvblock_command("replay", trace, "--blocks", "30", "--json", file)
    virtual = json.loads(file.read_text())["virtual"]
    assert (virtual["shared"]["requests_finished"], virtual["shared"]["requests_skipped"]) == (2, 1)
    assert (virtual["split"]["requests_finished"], virtual["split"]["requests_skipped"]) == (1, 2)


def test_more_blocks_than_could_be_counted_one_by_one(tmp_path: Path) -> None:
    found = replayed(tmp_path, "--blocks", str(2**31 - 1), "--mode", "shared")
    assert found["virtual"]["shared"]["pool_blocks"] == 2**31 - 1


@pytest.mark.parametrize(
    ("blocks", "block_size", "problem"),
    [
        (2049, 16, "pool 'shared' has 2049 blocks of 16 tokens, not 2048 of 16; pool 'split-2'"),
        (2048, 32, "pool 'shared' has 2048 blocks of 32 tokens, not 2048 of 16"),
    ],
)
def test_pools_of_another_size(
    serving: Callable[..., kvblock.EmbeddedServer], blocks: int, block_size: int, problem: str
) -> None:
    with serving(blocks, block_size) as server:
        done = kvblock_command(*BUNDLED, "--address", server.address, expect=2)
    assert problem in done.stderr
    assert "hint: kvblock serve --pool shared:total=2048,block_size=16" in done.stderr


def test_missing_pools(serving: Callable[..., kvblock.EmbeddedServer]) -> None:
    with serving() as server:
        done = kvblock_command(
            *BUNDLED, "--address", server.address, "--pool", "mine", "--engines", "4", expect=2
        )
    assert "pool 'mine' is missing; " in done.stderr
    assert "pool 'split-3' is missing" in done.stderr


def test_pool_in_use(serving: Callable[..., kvblock.EmbeddedServer]) -> None:
    with serving() as server, kvblock.connect(server.address, pool="split-1") as client:
        client.allocate(7, 3)
        done = kvblock_command(*BUNDLED, "--address", server.address, expect=1)
        assert "pool 'split-1' is not empty: 1 sequences hold 3 blocks" in done.stderr
        assert len(client.get_block_table(7).block_numbers) == 3


def test_nobody_there(tmp_path: Path) -> None:
    done = kvblock_command(*BUNDLED, "--address", f"unix:{tmp_path}/nobody", expect=3)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere.csv",), "nowhere.csv: No such file or directory"),
        (("--engines", "0"), "--engines"),
        (("--blocks", "2"), "--blocks 2 is no block for each of 3 engines"),
        (("--blocks", "2147483648"), "--blocks"),
        (("--block-size", "0"), "--block-size"),
        (("--mode", "neither"), "--mode"),
        (("--limit", "0"), "--limit"),
        (("--pool", "mine"), "--pool goes with --address"),
        (("--address", "nonsense"), "address"),
        (("--json", "/nowhere/figures.json"), "--json /nowhere/figures.json"),
        (("--plot", "/nowhere/use.png"), "--plot /nowhere/use.png"),
        (("--plot", "-"), "--plot -: a picture goes to a file"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], problem: str) -> None:
    done = kvblock_command("replay", *arguments, expect=2)
    assert problem in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_broken_trace_names_its_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12,-4\n")
    done = kvblock_command("replay", trace, expect=2)
    assert "trace.csv: line 2: GeneratedTokens is -4: wanted" in done.stderr


def test_generated_trace_is_the_bundled_one_by_default(tmp_path: Path) -> None:
    kvblock_command("trace", "generate", "-o", tmp_path / "trace.csv")
    printed = kvblock_command("trace", "generate", "--output", "-")
    assert (tmp_path / "trace.csv").read_text() == printed.stdout
    assert printed.stdout.count("\n") == 361
    other = kvblock_command("trace", "generate", "--seed", "9", "--requests", "5", "-o", "-")
    assert other.stdout.count("\n") == 6
    assert kvblock_command("trace", "generate", "--rate", "41", "-o", "-", expect=2).stdout == ""
    kvblock_command("trace", "generate", "-o", tmp_path, expect=1)
