import json
from array import array
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kvblock_replay.driver import Measured, Run
from kvblock_replay.figures import Parameters, clocked, document, percentile, virtual
from kvblock_replay.modes import Mode, make_setup
from kvblock_replay.plot import draw
from kvblock_replay.report import show
from kvblock_replay.simulation import PoolUse
from kvblock_replay.trace import Request
from tests.unit.replay.pools import drive

PARAMETERS = Parameters("a.csv", "azure", 8, None, 2, 30, 16, ("shared", "split"))
REQUESTS = [Request(index * 1_000_000, 64, 100) for index in range(8)]


def made(mode: Mode, requests: list[Request] = REQUESTS) -> Run:
    outcome, _ = drive(requests, make_setup(mode, 2, 30, 16).layout, steps_max=100_000)
    return Run(mode, outcome, Measured(array("q", range(1_000, 201_000, 1_000)), 10**9))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [made(Mode.SHARED), made(Mode.SPLIT)]


def shown(runs: list[Run], *, terminal: bool = False) -> str:
    text = StringIO()
    show(Console(file=text, width=80, force_terminal=terminal), PARAMETERS, runs)
    return text.getvalue()


@pytest.mark.parametrize(
    ("percent", "value"), [(1, 10), (20, 10), (21, 20), (50, 30), (95, 50), (100, 50)]
)
def test_percentile_is_a_value_that_occurred(percent: int, value: int) -> None:
    assert percentile([10, 20, 30, 40, 50], percent) == value


def test_the_setting_is_told_in_words() -> None:
    assert PARAMETERS.setting == "2 engines, 30 blocks of 16 tokens"
    assert replace(PARAMETERS, engines=1).setting == "1 engine, 30 blocks of 16 tokens"


def test_percentile_of_nothing() -> None:
    assert percentile([], 50) is None


def test_measured_figures() -> None:
    measured = Measured(array("q", [3_000_000, 1_000_000, 2_000_000]), 2_000_000_000)
    assert clocked(measured) == {
        "rpc_latency_p50_ms": 2.0,
        "rpc_latency_p99_ms": 3.0,
        "steps_per_second": 1.5,
        "wall_s": 2.0,
    }
    assert set(clocked(Measured()).values()) == {None, 0.0}


def test_document_keeps_what_is_virtual_from_what_is_measured(runs: list[Run]) -> None:
    found = json.loads(json.dumps(document(PARAMETERS, runs)))
    assert list(found) == ["parameters", "virtual", "measured"]
    assert list(found["virtual"]) == list(found["measured"]) == ["shared", "split"]
    assert found["parameters"]["blocks"] == 30
    shared = found["virtual"]["shared"]
    outcome = runs[0].outcome
    assert shared["makespan_s"] == outcome.makespan_ns / 1e9
    assert shared["preemptions"] == outcome.counts.preemptions
    assert shared["pool_use_peak"] == outcome.peak_blocks / 30
    assert 0 < shared["pool_use_mean"] <= 1
    assert found["measured"]["split"]["rpc_latency_p99_ms"] == 0.198


def test_table_fits_80_columns_and_has_no_colours_off_a_terminal(runs: list[Run]) -> None:
    text = shown(runs)
    assert "\x1b" not in text
    assert "\x1b" in shown(runs, terminal=True)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "…" not in text


def test_table_shows_both_modes_and_their_difference(runs: list[Run]) -> None:
    rows = {line[:28].strip(): line[28:].split() for line in shown(runs).splitlines()}
    shared, split = (run.outcome.counts.preemptions for run in runs)
    change = shared - split
    assert split > 0
    percent = f"{change / split * 100:+.1f}"
    assert rows["Preemptions"] == [
        str(shared),
        str(split),
        f"{change:+}",
        percent,
    ]
    assert rows["Requests finished"] == ["8", "8", "0"]


def test_table_of_one_mode_has_no_difference(runs: list[Run]) -> None:
    text = shown(runs[1:])
    assert "split" in text
    assert "shared" not in text
    assert "difference" not in text


def test_table_of_three_modes_has_no_difference_and_fits() -> None:
    lines = shown([made(mode) for mode in (Mode.RECALL, Mode.HOARD, Mode.SPLIT)]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["recall", "hoard", "split"]


def test_nothing_finished_shows_no_waits() -> None:
    run = made(Mode.SPLIT, [Request(0, 9999, 1)])
    assert virtual(run.outcome)["queue_wait_p50_s"] is None
    assert virtual(run.outcome)["makespan_s"] == 0
    assert "Queue wait p50" in shown([run])


def test_spans_are_means_over_equal_times() -> None:
    use = PoolUse()
    for now, held in [(3, 6), (10, 0)]:
        use.note(now, held)
    assert use.spans(10, 5) == [0, 3, 6, 6, 6]
    assert use.spans(10, 1) == [4.2]
    assert use.spans(20, 2) == [4.2, 0]
    assert use.spans(10, 40)[11:13] == [0, 6]
    assert PoolUse().spans(0, 3) == [0, 0, 0]


def test_spans_keep_the_mean(runs: list[Run]) -> None:
    use, until = runs[0].outcome.pool_use, runs[0].outcome.makespan_ns
    means = use.spans(until, 77)
    assert sum(means) / 77 == pytest.approx(use.mean(until))


def test_picture_is_a_png(runs: list[Run], tmp_path: Path) -> None:
    for count in (1, 2):
        draw(tmp_path / "use.anything", PARAMETERS, runs[:count])
        assert (tmp_path / "use.anything").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_picture_of_nothing(tmp_path: Path) -> None:
    draw(tmp_path / "use.png", PARAMETERS, [made(Mode.SPLIT, [Request(0, 9999, 1)])])
    assert (tmp_path / "use.png").stat().st_size > 0
