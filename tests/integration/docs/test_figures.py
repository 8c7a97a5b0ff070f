"""The figures in the pages are what their commands give, and the script puts them there."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.doc_figures import PAGES
from benchmarks.goals import GOALS
from tests.integration.docs.markdown import ROOT
from tests.integration.processes import run

SCRIPT = ("-m", "benchmarks.doc_figures")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A directory with the pages that have figures."""
    root = tmp_path / "copy"
    for page in PAGES.values():
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, root / page)
    return root


def test_the_comparison_is_what_make_run_prints(copy: Path, tmp_path: Path) -> None:
    before = (copy / "README.md").read_text()
    (recipe,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "replay" in line)
    command = recipe.strip().removeprefix("@$(BIN)/").split()
    kvblock, *arguments = command
    printed = tmp_path / "run.txt"
    printed.write_text(run(Path(sys.executable).with_name(kvblock), *arguments).stdout)
    write_figures(copy, "--run", printed)
    assert deterministic((copy / "README.md").read_text()) == deterministic(before)


def test_each_part_takes_new_figures_and_keeps_the_others(copy: Path, tmp_path: Path) -> None:
    replay, bench = tmp_path / "replay.json", tmp_path / "bench.json"
    replay.write_text(json.dumps(replayed("some.csv", preemptions=123_456)))
    bench.write_text(json.dumps(measured(5.25)))
    before = texts(copy)
    write_figures(copy, "--replay", replay, "--bench", bench)
    once = texts(copy)
    on_replay, on_bench = once["docs/replay.md"], once["docs/benchmarks.md"]
    assert "`kvblock replay some.csv --engines 3 --blocks 64 --block-size 16`" in on_replay
    assert "| Preemptions | 123,456 | 123,456 | +0.0% |" in on_replay
    figure = "| step in a session / echo | 256 | 5.25 | at most 1.6 | at most 1.3 |"
    assert f"{figure} kvblock 71, echo 61 |" in on_bench
    assert "`make bench` on this machine: cpu Some Processor, cores 2." in on_bench
    assert "Left out: redis_over_stream_step: no redis-server here." in on_bench
    line = "takes 71 us (p50), 5.25 times a bare gRPC echo of the same bytes.\n"
    assert line in once["README.md"]
    write_figures(copy, "--replay", replay, "--bench", bench)
    assert texts(copy) == once
    assert {page: outside(text) for page, text in once.items()} == {
        page: outside(text) for page, text in before.items()
    }


def test_engines_with_caches_have_a_part_of_their_own(copy: Path, tmp_path: Path) -> None:
    document = replayed("some.csv", preemptions=7)
    (virtual,) = {id(one): one for one in document["virtual"].values()}.values()
    document["virtual"] = {
        "recall": virtual | {"preemptions": 1_234},
        "hoard": virtual | {"preemptions": 55_555},
        "split": virtual,
    }
    replay = tmp_path / "replay.json"
    replay.write_text(json.dumps(document))
    write_figures(copy, "--hoarding", replay)
    page = texts(copy)["docs/replay.md"]
    assert "--engines 3 --blocks 64 --block-size 16 --mode hoarding`" in page
    assert "| Preemptions | 1,234 | 55,555 | 7 |" in page


def test_the_line_has_redis_where_it_was_measured(copy: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    with_redis = {"redis_over_stream_step": dict.fromkeys(("1", "32", "256", "2048"), 8.5)}
    bench.write_text(json.dumps(measured(5.25) | with_redis))
    write_figures(copy, "--bench", bench)
    assert "; a Redis script for it takes 8.50 times as long." in texts(copy)["README.md"]


def test_a_page_without_the_marks_is_refused(copy: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(measured(1.0)))
    (copy / "docs/benchmarks.md").write_text("nothing\n")
    before = texts(copy)
    done = run(sys.executable, *SCRIPT, "--root", copy, "--bench", bench, expect=1)
    assert "<!-- figures: bench --> is 0 times in docs/benchmarks.md" in done.stderr
    assert texts(copy) == before


def test_figures_of_a_quick_run_are_refused(copy: Path, tmp_path: Path) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps(measured(1.0) | {"quick": True}))
    before = texts(copy)
    run(sys.executable, *SCRIPT, "--root", copy, "--bench", bench, expect=1)
    assert texts(copy) == before


def write_figures(root: Path, *arguments: str | Path) -> None:
    run(sys.executable, *SCRIPT, "--root", root, *arguments)


def texts(root: Path) -> dict[str, str]:
    """The pages that have figures."""
    return {page: (root / page).read_text() for page in PAGES.values()}


def deterministic(text: str) -> list[list[str]]:
    """The words of all lines but those that tell how fast this machine was, or draw a rule."""
    lines = [line.split() for line in text.splitlines() if ", measured  " not in line]
    return [
        words for words in lines if set("".join(words)) != {"\N{BOX DRAWINGS LIGHT HORIZONTAL}"}
    ]


def outside(text: str) -> list[str]:
    """The text outside of all figures."""
    parts = text.split("<!-- figures: ")
    return [part.partition("<!-- end of figures -->")[2] or part for part in parts]


def replayed(trace: str, preemptions: int) -> dict[str, Any]:
    names = ("requests_finished", "requests_skipped", "recomputed_tokens", "queue_wait_p50_s")
    more = ("queue_wait_p95_s", "makespan_s", "pool_use_mean", "steps")
    virtual = dict.fromkeys((*names, *more), 0.5) | {"preemptions": preemptions}
    parameters = {"trace": trace, "requests": 9, "limit": None, "engines": 3, "blocks": 64}
    return {
        "parameters": parameters | {"block_size": 16},
        "virtual": {"shared": virtual, "split": virtual},
    }


def measured(value: float) -> dict[str, Any]:
    """Every figure at one value, but Redis, which was not there."""
    figures: dict[str, Any] = {}
    for goal in GOALS:
        if not goal.key.startswith("redis"):
            by_size = figures.setdefault(goal.key, {}) if goal.size else figures
            by_size[goal.size or goal.key] = value
    row = {"kvblock": {"p50_us": 71.4}, "echo": {"p50_us": 60.6}, "rounds": 5}
    return figures | {
        "missing": {"redis_over_stream_step": "no redis-server here"},
        "quick": False,
        "machine": {"cpu": "Some Processor", "cores": 2},
        "details": {"stream_step_over_echo": {"256": row}},
    }
