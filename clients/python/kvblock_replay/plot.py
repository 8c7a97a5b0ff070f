"""Pool use over virtual time as a PNG, all modes in one picture.

matplotlib is imported when a picture is wanted, and needs no display. Each mode is drawn as the
mean over `_COLUMNS` equal spans of time, so that a long replay stays readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvblock_replay.driver import Run
from kvblock_replay.figures import Parameters
from kvblock_replay.modes import Mode

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

    figure = Figure(figsize=(10, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for run in runs:
        seconds = run.outcome.makespan_ns / 1e9
        held = run.outcome.pool_use.spans(run.outcome.makespan_ns, _COLUMNS)
        share = [blocks / run.outcome.total_blocks * 100 for blocks in held]
        times = [(column + 0.5) * seconds / _COLUMNS for column in range(_COLUMNS)]
        label = (
            f"{run.mode.value}: done after {seconds:,.0f} s, "
            f"{run.outcome.counts.preemptions:,} preemptions"
        )
        colour = _COLOURS[run.mode]
        axes.plot(times, share, color=colour, linewidth=1.4, label=label)
        axes.fill_between(times, share, color=colour, alpha=0.12, linewidth=0)
    axes.set_title(f"{parameters.trace}: {parameters.setting}", loc="left")
    axes.set_xlabel("virtual time in s")
    axes.set_ylabel("blocks in use in %")
    axes.set_ylim(0, 105)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=2, frameon=False)
    figure.savefig(path, format="png")
