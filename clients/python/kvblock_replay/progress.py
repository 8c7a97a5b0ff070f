"""A progress bar on standard error while a mode runs; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kvblock_replay.modes import Mode


@contextmanager
def progress_bars(
    requests: int, check: Callable[[], None]
) -> Iterator[Callable[[Mode], Callable[[int], None]]]:
    """Give a function that begins a mode's bar and answers how to move it on.

    `check` is called whenever it moves.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:6}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def begin(mode: Mode) -> Callable[[int], None]:
            task = progress.add_task(mode.value, total=requests)

            def move(done: int) -> None:
                check()
                progress.update(task, completed=done)

            return move

        yield begin
