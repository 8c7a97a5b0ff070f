"""The comparison of two checkouts runs, and tells every figure."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOW = ("no journal", "journal")


def compare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.two_checkouts", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_a_checkout_is_compared_with_itself() -> None:
    done = compare(str(ROOT), "--seconds", "0", "--starts", "1", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    kinds = ["session step, B=1", "session step, B=32", "session step, B=256"]
    kinds += ["session step, B=2048", "Allocate and Free", "unary Step, B=32"]
    assert list(figures) == [
        f"{kind}, {how}" for how in ("no journal", "journal") for kind in kinds
    ]
    assert all(figure > 0 for figure in figures.values())


def test_a_directory_without_an_environment_is_refused(tmp_path: Path) -> None:
    done = compare(str(tmp_path))
    assert done.returncode == 2
    assert "run `make setup` there" in done.stderr


def test_no_start_at_all_is_refused() -> None:
    done = compare(str(ROOT), "--starts", "0")
    assert done.returncode == 2
    assert "--starts is 0; it must be at least 1" in done.stderr
