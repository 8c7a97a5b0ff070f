"""Pool use over virtual time, and how long requests waited, as a PNG with all modes in it.

matplotlib is imported when a picture is wanted, and needs no display. The use of each mode is drawn
as the mean over `_COLUMNS` equal spans of time, so that a long replay stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvblock_replay.driver import Run
from kvblock_replay.figures import Parameters
from kvblock_replay.modes import Mode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 600
_COLOURS = {
    Mode.SHARED: "#0072b2",
    Mode.SPLIT: "#d55e00",
    Mode.HOARD: "#cc79a7",
    Mode.RECALL: "#009e73",
}


def draw(path: Path, parameters: Parameters, runs: Sequence[Run]) -> None:
    """Write the picture. Raises OSError when the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    use, waits = figure.subplots(1, 2, width_ratios=(5, 3))
    for run in runs:
        _draw_use(use, run)
        _draw_waits(waits, run)
    figure.suptitle(f"{parameters.trace}: {parameters.setting}", x=0.01, ha="left")
    use.set_xlabel("virtual time in s")
    use.set_ylabel("blocks in use in %")
    use.set_xlim(left=0)
    waits.set_xlabel("virtual time from arrival to admission in s")
    waits.set_ylabel("requests that waited at most so long in %")
    waits.set_xscale("symlog", linthresh=0.1)
    waits.set_xlim(left=0)
    for axes in (use, waits):
        axes.set_ylim(0, 105)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *use.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False
    )
    figure.savefig(path, format="png")


def _draw_use(axes: Axes, run: Run) -> None:
    seconds = run.outcome.makespan_ns / 1e9
    held = run.outcome.pool_use.spans(run.outcome.makespan_ns, _COLUMNS)
    share = [blocks / run.outcome.total_blocks * 100 for blocks in held]
    times = [(column + 0.5) * seconds / _COLUMNS for column in range(_COLUMNS)]
    label = (
        f"{run.mode.value}: done after {seconds:,.0f} s, "
        f"{run.outcome.counts.preemptions:,} preemptions"
    )
    colour = _COLOURS[run.mode]
    axes.plot(times, share, color=colour, linewidth=1.2, label=label)
    axes.fill_between(times, share, color=colour, alpha=0.12, linewidth=0)


def _draw_waits(axes: Axes, run: Run) -> None:
    seconds = [wait / 1e9 for wait in run.outcome.waits_ns]
    share = [(index + 1) / len(seconds) * 100 for index in range(len(seconds))]
    axes.step(seconds, share, where="post", color=_COLOURS[run.mode], linewidth=1.4)
