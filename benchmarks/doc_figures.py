"""Writes measured figures into README.md and docs/, between the marks that are there for them.

    make run > build/run.txt
    kvblock replay azure_code_2023.csv --blocks 4096 --output build/azure.json
    make bench
    P=.venv/bin/python; S="-m benchmarks.doc_figures"
    $P $S --run build/run.txt --replay build/azure.json --bench build/bench.json

Rules:
- Only the parts whose figures are given are written; the other parts stay as they are. No page is
  written unless every part that has figures has its marks.
- Each part names the command that made it, as that command's own output tells it.
- Figures are shown as they were measured, rounded; none is left out because of what it says.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.goals import GOALS, Goal

ROOT = Path(__file__).parents[1]
PAGES = {
    "run": "README.md",
    "line": "README.md",
    "replay": "docs/replay.md",
    "hoarding": "docs/replay.md",
    "bench": "docs/benchmarks.md",
}
"""The page that has the marks of each part."""
BEGIN, END = "<!-- figures: {} -->", "<!-- end of figures -->"


REPLAY_ROWS = (
    ("Requests finished", "requests_finished", "{:,.0f}"),
    ("Requests skipped, larger than the pool", "requests_skipped", "{:,.0f}"),
    ("Preemptions", "preemptions", "{:,.0f}"),
    ("Recomputed tokens", "recomputed_tokens", "{:,.0f}"),
    ("Queue wait p50", "queue_wait_p50_s", "{:,.2f} s"),
    ("Queue wait p95", "queue_wait_p95_s", "{:,.2f} s"),
    ("Makespan", "makespan_s", "{:,.1f} s"),
    ("Pool use, mean", "pool_use_mean", "{:.1%}"),
    ("Steps", "steps", "{:,.0f}"),
)
"""The rows of a replay's table: a label, a figure's name, and how that is shown."""


def main() -> None:
    """Rewrite the parts that figures are given for."""
    parser = argparse.ArgumentParser(description="Write measured figures into the pages.")
    parser.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help="has README.md, docs/"
    )
    parser.add_argument("--run", type=Path, metavar="FILE", help="what `make run` printed")
    parser.add_argument(
        "--replay", type=Path, nargs="+", default=[], metavar="FILE", help="from replay --output"
    )
    parser.add_argument(
        "--hoarding",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="from replay --mode hoarding --output",
    )
    parser.add_argument("--bench", type=Path, metavar="FILE", help="what `make bench` wrote")
    given = parser.parse_args()
    parts: dict[str, str] = {}
    if given.run:
        parts["run"] = run_part(given.run.read_text())
    if given.replay:
        documents = [json.loads(path.read_text()) for path in given.replay]
        parts["replay"] = "\n\n".join(map(replay_part, documents))
    if given.hoarding:
        documents = [json.loads(path.read_text()) for path in given.hoarding]
        parts["hoarding"] = "\n\n".join(map(hoarding_part, documents))
    if given.bench:
        measured = json.loads(given.bench.read_text())
        parts |= {"bench": bench_part(measured), "line": bench_line(measured)}
    texts = {PAGES[part]: (given.root / PAGES[part]).read_text() for part in parts}
    for part, figures in parts.items():
        texts[PAGES[part]] = replaced(texts[PAGES[part]], part, figures, PAGES[part])
    for page, text in texts.items():
        (given.root / page).write_text(text)


def replaced(text: str, part: str, figures: str, page: str) -> str:
    """The text with one part's figures in place of the old ones."""
    begin = BEGIN.format(part)
    pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(END)}", re.DOTALL)
    new, count = pattern.subn(lambda _: f"{begin}\n{figures}\n{END}", text)
    if count != 1:
        sys.exit(f"doc_figures: {begin} is {count} times in {page}, not once")
    return new


def run_part(printed: str) -> str:
    """What `make run` printed, without the lines of its set-up."""
    lines = [line.rstrip() for line in printed.splitlines() if not line.startswith("setup:")]
    shown = "\n".join(lines).strip("\n")
    return f"`make run` ends with the comparison:\n\n```text\n{shown}\n```"


def replay_part(document: dict[str, Any]) -> str:
    """A replay's command and its virtual figures, shared beside split."""
    lines = [f"`{replay_command(document['parameters'])}`:", ""]
    lines += ["| | shared | split | difference |", "|---|---:|---:|---:|"]
    shared, split = document["virtual"]["shared"], document["virtual"]["split"]
    lines += [
        replay_row(label, shown, shared[figure], split[figure])
        for label, figure, shown in REPLAY_ROWS
    ]
    return "\n".join(lines)


def hoarding_part(document: dict[str, Any]) -> str:
    """The same of engines with caches: with recall, without, and on fixed shares."""
    command = replay_command(document["parameters"])
    lines = [f"`{command} --mode hoarding`:", ""]
    lines += ["| | recall | hoard | split |", "|---|---:|---:|---:|"]
    modes = [document["virtual"][mode] for mode in ("recall", "hoard", "split")]
    for label, figure, shown in REPLAY_ROWS:
        cells = " | ".join(shown.format(mode[figure]) for mode in modes)
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def replay_command(parameters: dict[str, Any]) -> str:
    """The command of a replay, without its mode."""
    command = [
        "kvblock replay",
        parameters["trace"],
        f"--engines {parameters['engines']}",
        f"--blocks {parameters['blocks']}",
        f"--block-size {parameters['block_size']}",
    ]
    if parameters["limit"] is not None:
        command.append(f"--limit {parameters['limit']}")
    return " ".join(command)


def replay_row(label: str, shown: str, shared: float, split: float) -> str:
    """One row; the difference is shared less split, in percent of split where that is not zero."""
    change = shared - split
    if shown.endswith("%}"):
        difference = f"{change * 100:+.1f} points"
    elif split:
        difference = f"{change / split:+.1%}"
    else:
        difference = shown.format(change)
    return f"| {label} | {shown.format(shared)} | {shown.format(split)} | {difference} |"


def bench_part(measured: dict[str, Any]) -> str:
    """The benchmark's machine, its figures beside their bounds, and what is missing."""
    if measured["quick"]:
        sys.exit("doc_figures: these are coarse figures of a quick run; run `make bench`")
    machine = ", ".join(f"{name} {value}" for name, value in measured["machine"].items())
    lines = [f"`make bench` on this machine: {machine}.", ""]
    lines += ["| Measured | B | Found | Bar | Goal | p50 in us |", "|---|---:|---:|---:|---:|---|"]
    lines += [bench_row(goal, measured) for goal in GOALS if goal.figure(measured) is not None]
    lines += ["", *(f"Left out: {what}: {why}." for what, why in measured["missing"].items())]
    return "\n".join(lines).rstrip()


def bench_line(measured: dict[str, Any]) -> str:
    """The benchmark in one sentence: a step of 256 sequences."""
    size = "256"
    median = measured["details"]["stream_step_over_echo"][size]["kvblock"]["p50_us"]
    over_echo = measured["stream_step_over_echo"][size]
    line = (
        f"`make bench`: a step that frees {size} sequences and takes a block for {size} takes"
        f" {median:.0f} us (p50), {over_echo:.2f} times a bare gRPC echo of the same bytes"
    )
    redis = measured.get("redis_over_stream_step", {}).get(size)
    rival = f"; a Redis script for it takes {redis:.2f} times as long" if redis else ""
    return f"{line}{rival}."


def bench_row(goal: Goal, measured: dict[str, Any]) -> str:
    """One figure, the medians that it was taken from, and its bounds."""
    details = measured["details"].get(goal.key, {})
    by_name = details.get(goal.size, {}) if goal.size else details
    timed = {name: row for name, row in by_name.items() if isinstance(row, dict)}
    medians = [f"{name} {row['p50_us']:.0f}" for name, row in timed.items() if "p50_us" in row]
    sign = "at least" if goal.more_is_better else "at most"
    bounds = ["" if bound is None else f"{sign} {bound:g}" for bound in (goal.bar, goal.goal)]
    figure = f"{goal.figure(measured):.2f}"
    return f"| {' | '.join([goal.text, goal.size, figure, *bounds, ', '.join(medians)])} |"


if __name__ == "__main__":
    main()
