from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from kvblock_replay.generate import Synthetic, generate
from kvblock_replay.trace import Request, read_trace

BUNDLED = files("kvblock_replay").joinpath("bundled.csv")


def made(path: Path, parameters: Synthetic) -> tuple[Request, ...]:
    path.write_text("".join(generate(parameters)))
    return read_trace(path).requests


def test_bundled_trace_is_what_the_generator_makes() -> None:
    assert "".join(generate(Synthetic())).encode() == BUNDLED.read_bytes()


def test_same_seed_same_trace_other_seed_another() -> None:
    first, again, other = (list(generate(Synthetic(seed=seed))) for seed in (5, 5, 6))
    assert first == again != other


def test_number_of_requests_in_order_of_arrival(tmp_path: Path) -> None:
    for wanted in (1, 2, 1000):
        requests = made(tmp_path / "trace", Synthetic(seed=3, requests=wanted))
        assert len(requests) == wanted
        lines = (tmp_path / "trace").read_text().splitlines()[1:]
        assert lines == sorted(lines)


def test_fewer_requests_are_the_beginning_of_more() -> None:
    few = list(generate(Synthetic(requests=10)))
    assert list(generate(Synthetic(requests=100)))[:11] == few


def test_load_moves_from_engine_to_engine(tmp_path: Path) -> None:
    parameters = Synthetic(seed=8, requests=3000, engines=4, phase=20)
    start = next(iter(made(tmp_path / "trace", parameters))).arrival_ns
    assert start == 0
    tokens = [[0] * 4 for _ in range(8)]
    for index, request in enumerate(made(tmp_path / "trace", parameters)):
        phase = request.arrival_ns // 20_000_000_000
        if phase < 8:
            tokens[phase][index % 4] += request.prompt_tokens
    for phase, by_engine in enumerate(tokens):
        assert by_engine[phase % 4] > sum(by_engine) / 2


def test_mean_rate(tmp_path: Path) -> None:
    for rate in (0.5, 8.0, 40.0):
        requests = made(tmp_path / "trace", Synthetic(seed=1, requests=4000, rate=rate))
        seconds = requests[-1].arrival_ns / 1e9
        assert 0.8 * rate < len(requests) / seconds < 1.25 * rate


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("seed", -1, "seed is -1: wanted a whole number from 0 on"),
        ("requests", 0, "requests is 0: wanted at least 1"),
        ("engines", 0, "engines is 0: wanted at least 1"),
        ("phase", 0, "phase is 0: wanted at least 1"),
        ("rate", 0.0, "rate is 0.0: wanted requests per second above 0, at most 40"),
        ("rate", 41.0, "rate is 41.0"),
        ("rate", float("nan"), "rate is nan"),
    ],
)
def test_parameters_outside_their_range(field: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(generate(Synthetic(**{field: value})))
