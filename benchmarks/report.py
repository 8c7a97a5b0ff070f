"""The figures as a table for people and as a document for machines."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.context import FULL, Effort, Results
from benchmarks.goals import GOALS, Goal
from kvblock_cli.tables import table

_MARKS = {
    "goal": ("goal reached", "green"),
    "bar": ("bar held", "yellow"),
    "missed": ("missed", "red"),
}


def document(results: Results, machine: dict[str, object], effort: Effort) -> dict[str, object]:
    """Everything that was measured; the figures are at the top under their keys."""
    return results.figures | {
        "missing": results.missing,
        "quick": effort is not FULL,
        "effort": effort._asdict(),
        "machine": machine,
        "goals": [goal._asdict() for goal in GOALS],
        "details": results.details,
    }


def show(console: Console, results: Results, machine: dict[str, object]) -> None:
    """Print the figures beside their bounds, the load figures, and what is missing."""
    console.print(_figures(results))
    concurrent = results.details.get("concurrent_engines")
    if isinstance(concurrent, dict):
        console.print(_engines(concurrent))
    speed = results.details.get("core_step")
    if isinstance(speed, dict):
        by_size = ", ".join(f"{row['p50_us']:g} us (B={size})" for size, row in speed.items())
        console.print(f"The core alone, p50 per step: {by_size}")
    for what, why in results.missing.items():
        console.print(f"left out: {what}: {why}", style="yellow", markup=False)
    console.print("; ".join(f"{name} {value}" for name, value in machine.items()), markup=False)


def _figures(results: Results) -> Table:
    made = table("MEASURED", "B", "GOAL", "BAR", "FOUND", "P50 US", "")
    for goal in GOALS:
        figure = goal.figure(results.figures)
        if figure is None:
            continue
        words, style = _MARKS.get(goal.verdict(figure), ("", ""))
        made.add_row(
            goal.text,
            goal.size,
            _bound(goal, goal.goal),
            _bound(goal, goal.bar),
            Text(f"{figure:.2f}", style=style),
            _latencies(results, goal),
            Text(words, style=style),
        )
    return made


def _bound(goal: Goal, bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{'≥' if goal.more_is_better else '≤'} {bound:g}"


def _latencies(results: Results, goal: Goal) -> str:
    """The medians that a figure was taken from, such as `560 / 430`."""
    details = results.details.get(goal.key)
    if goal.size and isinstance(details, dict):
        details = details.get(goal.size)
    if not isinstance(details, dict):
        return ""
    names = details.get("ratio_of", details)
    rows = [row for name in names if isinstance(row := details[name], dict) and "p50_us" in row]
    return " / ".join(f"{row['p50_us']:.0f}" for row in rows)


def _engines(by_count: dict[str, object]) -> Table:
    made = table(
        "ENGINES AT ONCE", "STEPS/S", "P50 US", "P99 US", "SERVER", "CLIENT", "ECHO STEPS/S"
    )
    for count, row in by_count.items():
        if not isinstance(row, dict):
            continue
        ours, echo = row["kvblock"], row["echo"]
        made.add_row(
            f"{count}, B={by_count['step_size']}",
            f"{ours['steps_per_second']:,}",
            f"{ours['p50_us']:,.0f}",
            f"{ours['p99_us']:,.0f}",
            _share(ours["server_share_of_a_core"]),
            _share(ours["client_share_of_a_core"]),
            f"{echo['steps_per_second']:,}",
        )
    return made


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%} of a core"
