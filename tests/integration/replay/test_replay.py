"""`kvblock replay` as its users run it: real commands, a real server, a real socket."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import kvblock
from kvblock_replay.modes import Mode, make_setup
from tests.conftest import ServerFactory
from tests.integration.cli.console import Console
from tests.integration.processes import plain_environment, run

COMMAND = Path(sys.executable).with_name("kvblock")
BUNDLED = ("replay", "--limit", "30", "--blocks", "2048")


def kvblock_command(*arguments: str | Path, expect: int = 0) -> CompletedProcess[str]:
    return run(COMMAND, *arguments, expect=expect)


def replayed(tmp_path: Path, *arguments: str | Path) -> dict[str, Any]:
    file = tmp_path / "figures.json"
    kvblock_command(*BUNDLED, *arguments, "--output", file)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.fixture
def serving(server_factory: ServerFactory) -> Callable[..., str]:
    """Starts a server with the pools of a replay of 3 engines; gives its address."""

    def start(blocks: int = 2048, block_size: int = 16) -> str:
        setups = [make_setup(mode, 3, blocks, block_size) for mode in Mode]
        return server_factory([text for setup in setups for text in setup.definitions()]).address

    return start


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The figures of a replay on a server of its own."""
    return replayed(tmp_path_factory.mktemp("own"))


def test_both_modes_on_a_server_of_its_own(own: dict[str, Any]) -> None:
    assert own["parameters"] == {
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
        assert own["virtual"][mode]["requests_finished"] == 30
        assert own["virtual"][mode]["makespan_s"] > 0
        assert own["measured"][mode]["rpc_latency_p50_ms"] > 0
        assert own["measured"][mode]["steps_per_second"] > 0


def test_virtual_figures_are_the_same_every_time(tmp_path: Path, own: dict[str, Any]) -> None:
    picture = tmp_path / "use.png"
    again = replayed(tmp_path, "--plot", picture)
    assert again["virtual"] == own["virtual"]
    assert again["measured"] != own["measured"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_sharing_beats_splitting_on_the_bundled_trace(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    kvblock_command("replay", "--output", file)
    virtual = json.loads(file.read_text())["virtual"]
    assert virtual["split"]["preemptions"] > 0
    assert virtual["shared"]["preemptions"] < virtual["split"]["preemptions"]
    assert virtual["shared"]["makespan_s"] < virtual["split"]["makespan_s"]
    assert virtual["shared"]["requests_finished"] == virtual["split"]["requests_finished"] == 360


def test_recall_beats_hoarding_and_splitting_on_the_bundled_trace(tmp_path: Path) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "use.png"
    kvblock_command("replay", "--mode", "hoarding", "--output", figures, "--plot", picture)
    virtual = json.loads(figures.read_text())["virtual"]
    recall, hoard, split = (virtual[mode] for mode in ("recall", "hoard", "split"))
    assert recall["queue_wait_p95_s"] < hoard["queue_wait_p95_s"]
    assert recall["queue_wait_p95_s"] < split["queue_wait_p95_s"]
    assert recall["makespan_s"] < min(hoard["makespan_s"], split["makespan_s"])
    assert recall["requests_finished"] == hoard["requests_finished"] == 360
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_output_is_a_plain_table_without_a_terminal() -> None:
    done = kvblock_command(*BUNDLED, "--mode", "shared")
    assert done.stderr == ""
    assert "Requests finished" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith("Audit clean, nothing held.\n")


def test_terminal_shows_a_bar_and_colours() -> None:
    shown = Console("").on_terminal("replay", "--limit", "15", COLUMNS="80")
    assert "15/15" in shown
    assert "100%" in shown
    assert "\x1b[32m" in shown


def test_json_on_standard_output_is_alone_there() -> None:
    done = kvblock_command(*BUNDLED, "--mode", "split", "--json")
    assert list(json.loads(done.stdout)["virtual"]) == ["split"]
    assert "Requests finished" in done.stderr


def test_against_a_running_server(
    tmp_path: Path, serving: Callable[..., str], own: dict[str, Any]
) -> None:
    address = serving()
    elsewhere = replayed(tmp_path, "--address", address)
    assert elsewhere["virtual"] == own["virtual"]
    with kvblock.connect(address) as client:
        pools = client.stats().pools
        # Engines with caches have pools of their own, for a replay with `--hoarding`.
        used = {pool.pool for pool in pools if pool.allocated_blocks_total}
        assert {pool.pool for pool in pools} - used == {"hoard", "recall"}
        assert [pool.held_blocks for pool in pools] == [0] * 6


@contextmanager
def running(address: str) -> Iterator[subprocess.Popen[str]]:
    """A replay that is in the middle of its first mode."""
    command = [str(COMMAND), "replay", "--address", address]
    with (
        kvblock.connect(address, pool="shared") as client,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        while client.stats(pool="shared").pools[0].revision < 100 and process.poll() is None:
            pass
        yield process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_it_with_nothing_held(
    serving: Callable[..., str], number: signal.Signals, code: int
) -> None:
    address = serving()
    with running(address) as process:
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == code
    with kvblock.connect(address) as client:
        assert [pool.held_blocks for pool in client.stats().pools] == [0] * 6


def test_another_client_in_the_pool_is_noticed(serving: Callable[..., str]) -> None:
    address = serving()
    with running(address) as process, kvblock.connect(address, pool="shared") as client:
        assert client.allocate(1, engine="intruder")
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (1, "")
        assert "another client uses the pool" in errors
        assert [(row.engine, row.num_blocks) for row in client.list_sequences()] == [
            ("intruder", 1)
        ]


def test_server_that_goes_away(server_factory: ServerFactory) -> None:
    server = server_factory(make_setup(Mode.SHARED, 3, 2048, 16).definitions())
    command = [str(COMMAND), "replay", "--mode", "shared", "--address", server.address]
    with (
        kvblock.connect(server.address) as client,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        while client.stats().pools[0].revision < 100 and process.poll() is None:
            pass
        server.stop()
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (3, "")
    assert "error: " in errors
    assert "Traceback" not in errors


def test_signal_ends_its_own_server(tmp_path: Path) -> None:
    command = [str(COMMAND), "replay"]
    environment = {**plain_environment(), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment) as process:
        while not any(tmp_path.glob("kvblock-*/kvblock.sock")) and process.poll() is None:
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
    assert list(tmp_path.iterdir()) == []


def test_requests_too_large_for_a_share_are_skipped_there(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(
        '{"timestamp": 0, "input_length": 160, "output_length": 1}\n'
        '{"timestamp": 0, "input_length": 161, "output_length": 1}\n'
        '{"timestamp": 0, "input_length": 481, "output_length": 1}\n'
    )
    file = tmp_path / "figures.json"
    kvblock_command("replay", trace, "--blocks", "30", "--output", file)
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
    serving: Callable[..., str], blocks: int, block_size: int, problem: str
) -> None:
    done = kvblock_command(*BUNDLED, "--address", serving(blocks, block_size), expect=2)
    assert problem in done.stderr
    assert "hint: kvblock serve --pool shared:total=2048,block_size=16" in done.stderr


def test_missing_pools(serving: Callable[..., str]) -> None:
    done = kvblock_command(
        *BUNDLED, "--address", serving(), "--pool", "mine", "--engines", "4", expect=2
    )
    assert "pool 'mine' is missing; " in done.stderr
    assert "pool 'split-3' is missing" in done.stderr


def test_pool_in_use(serving: Callable[..., str]) -> None:
    address = serving()
    with kvblock.connect(address, pool="split-1") as client:
        client.allocate(7, 3)
        done = kvblock_command(*BUNDLED, "--address", address, expect=1)
        assert "pool 'split-1' is not empty: 1 sequences hold 3 blocks" in done.stderr
        assert len(client.get_block_table(7).block_numbers) == 3


def test_two_replays_at_once_do_not_harm_each_other(serving: Callable[..., str]) -> None:
    """Engines have fixed names: the second is refused, and frees nothing of the first."""
    address = serving()
    with kvblock.connect(address, pool="shared") as client, client.session(engine="replay-1") as it:
        it.step(allocate=[7])
        it.step(free=[7])
        done = kvblock_command(*BUNDLED, "--address", address, expect=1)
        assert "replay-1" in done.stderr
        it.step(allocate=[8])
        assert len(client.get_block_table(8, engine="replay-1").block_numbers) == 1


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
        (("--output", "/nowhere/figures.json"), "--output /nowhere/figures.json"),
        (("--plot", "/nowhere/use.png"), "--plot /nowhere/use.png"),
        (("--plot", "-"), "--plot -: a picture goes to a file"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], problem: str) -> None:
    done = kvblock_command("replay", *arguments, expect=2)
    assert problem in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_picture_without_its_library(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('it is not here')")
    command = [str(COMMAND), "replay", "--plot", str(tmp_path / "use.png")]
    environment = {**plain_environment(), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: a picture needs matplotlib: it is not here\n"
        "hint: install this package with its `plot` extra\n"
    )


def test_broken_trace_names_its_line(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,12,-4\n")
    done = kvblock_command("replay", trace, expect=2)
    assert "trace.csv: line 2: GeneratedTokens is -4: wanted" in done.stderr


def test_unit_of_timestamps_is_told_or_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        '{"timestamp": 0, "isl": 160, "osl": 1}\n{"timestamp": 2, "isl": 160, "osl": 1}\n'
    )
    done = kvblock_command("replay", trace, expect=2)
    assert "trace.jsonl: its timestamps may be seconds or milliseconds" in done.stderr
    assert "--time-unit s or --time-unit ms" in done.stderr
    makespans = []
    for unit in ("s", "ms"):
        file = tmp_path / "figures.json"
        said = ("--time-unit", unit, "--mode", "shared", "--output", file)
        assert kvblock_command("replay", trace, *said).stderr == ""
        makespans.append(json.loads(file.read_text())["virtual"]["shared"]["makespan_s"])
    assert makespans[0] > 2 > makespans[1]
    trace.write_text('{"chat_id": 1, "timestamp": 0, "input_length": 9, "output_length": 1}\n')
    done = kvblock_command("replay", trace, "--mode", "shared")
    assert done.stderr == "timestamps are read as seconds\n"


def test_generated_trace_is_the_bundled_one_by_default(tmp_path: Path) -> None:
    kvblock_command("trace", "generate", "-o", tmp_path / "trace.csv")
    printed = kvblock_command("trace", "generate", "--output", "-")
    assert (tmp_path / "trace.csv").read_text() == printed.stdout
    assert printed.stdout.count("\n") == 361
    other = kvblock_command("trace", "generate", "--seed", "9", "--requests", "5", "-o", "-")
    assert other.stdout.count("\n") == 6
    assert kvblock_command("trace", "generate", "--rate", "41", "-o", "-", expect=2).stdout == ""
    kvblock_command("trace", "generate", "-o", tmp_path, expect=4)
