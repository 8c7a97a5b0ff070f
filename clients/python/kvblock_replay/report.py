"""The table of a replay: its modes side by side, and how shared differs from split.

Rules:
  - 80 columns are enough. Colours appear on a terminal only, and never alone: a difference also has
    its sign.
  - The difference is shared less split: green when sharing is better, red when it is worse, plain
    where more is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvblock_replay.driver import Run
from kvblock_replay.figures import Figures, Parameters, clocked, virtual
from kvblock_replay.modes import Mode

Value = float | None


class _Row(NamedTuple):
    label: str
    field: str
    show: Callable[[float], str]
    better: int = 0
    """-1: less is better, 1: more is better, 0: neither."""


_count = "{:,.0f}".format
_seconds = "{:,.2f} s".format
_milliseconds = "{:,.3f} ms".format


def _share(value: float) -> str:
    return f"{value * 100:.1f} %"


_VIRTUAL = (
    _Row("Requests finished", "requests_finished", _count, 1),
    _Row("Requests skipped", "requests_skipped", _count, -1),
    _Row("Prompt tokens", "prompt_tokens", _count),
    _Row("Generated tokens", "generated_tokens", _count),
    _Row("Preemptions", "preemptions", _count, -1),
    _Row("Recomputed tokens", "recomputed_tokens", _count, -1),
    _Row("Queue wait p50", "queue_wait_p50_s", _seconds, -1),
    _Row("Queue wait p95", "queue_wait_p95_s", _seconds, -1),
    _Row("Makespan", "makespan_s", _seconds, -1),
    _Row("Pool use, mean", "pool_use_mean", _share),
    _Row("Pool use, peak", "pool_use_peak", _share),
    _Row("Steps", "steps", _count),
)
_CLOCKED = (
    _Row("Step latency p50, measured", "rpc_latency_p50_ms", _milliseconds),
    _Row("Step latency p99, measured", "rpc_latency_p99_ms", _milliseconds),
    _Row("Steps per second, measured", "steps_per_second", _count),
)


def show(console: Console, parameters: Parameters, runs: Sequence[Run]) -> None:
    """Print what was replayed, its table, and how to read it."""
    title = f"{parameters.trace}: {parameters.requests:,} requests, {parameters.setting}"
    console.print(Text(title, "bold"))
    console.print(table(runs))
    console.print(Text("Times are virtual, the same every time; measured figures are this run's."))


def table(runs: Sequence[Run]) -> Table:
    """Make the table of some modes; shared and split, and no others, are compared."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("", no_wrap=True)
    for run in runs:
        made.add_column(run.mode.value, justify="right", no_wrap=True)
    if {run.mode for run in runs} == {Mode.SHARED, Mode.SPLIT}:
        made.add_column("difference", justify="right", no_wrap=True)
        made.add_column("in %", justify="right", no_wrap=True)
    figures = {run.mode: virtual(run.outcome) | clocked(run.measured) for run in runs}
    for rows in (_VIRTUAL, _CLOCKED):
        for row in rows:
            made.add_row(row.label, *_cells(row, figures))
        made.add_section()
    return made


def _cells(row: _Row, figures: dict[Mode, Figures]) -> list[str | Text]:
    values = {mode: of_mode[row.field] for mode, of_mode in figures.items()}
    cells: list[str | Text] = [
        "-" if value is None else row.show(value) for value in values.values()
    ]
    if values.keys() == {Mode.SHARED, Mode.SPLIT}:
        cells += _difference(row, values[Mode.SHARED], values[Mode.SPLIT])
    return cells


def _difference(row: _Row, shared: Value, split: Value) -> tuple[Text, Text]:
    """Shared less split: in the row's unit, and in percent of split."""
    if shared is None or split is None:
        return Text("-"), Text("-")
    change = shared - split
    size = row.show(abs(change))
    if size == row.show(0.0):
        return Text("0"), Text("")
    style = "" if not row.better else "green" if change * row.better > 0 else "red"
    if row.show is _share:  # The difference of shares is in percentage points.
        size = f"{abs(change) * 100:.1f} pp"
    percent = f"{change / split * 100:+.1f}" if split and row.show is not _share else ""
    if percent in ("+0.0", "-0.0"):
        percent = ""
    return Text(f"{'+' if change > 0 else '-'}{size}", style), Text(percent, style)
