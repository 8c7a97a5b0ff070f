"""`python -m benchmarks`: how fast a server is on this machine, beside what it can be held against.

Rules:
- The table goes to stdout, progress to stderr; with --json stdout is the JSON alone, and the table
  goes to stderr. Nothing moves where there is no terminal.
- Figures that miss their bar are a result, not a failure: the exit code is 0.
- What the benchmarks need is loaded when the command runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from kvblock_cli.failures import REFUSED, USAGE, CommandError, write_file
from kvblock_cli.options import Credentials, Json, option
from kvblock_cli.output import console, error_console, print_json
from kvblock_cli.register import add_command

if TYPE_CHECKING:
    from benchmarks.context import Access

_SECTIONS = (
    "stream",
    "unary",
    "loop",
    "numbers",
    "stash",
    "vllm",
    "redis",
    "leases",
    "durability",
    "engines",
    "pools",
    "tracing",
    "core",
)
_REFRESH = 0.01
"""Smallest progress that is shown; drawing costs time that the measurement would see."""


Address = Annotated[
    str | None,
    option(
        "ADDRESS",
        "A running server: unix:PATH or HOST:PORT; only what can be asked of any server is measured"
        " then. Without it servers of its own.",
        "--address",
        "-a",
    ),
]
Pool = Annotated[str, option("NAME", "With --address: the pool. Default: the default pool.")]
JsonFile = Annotated[
    Path | None, option("FILE", "Write everything as JSON, too.", "--output", "-o")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Less than a minute; the figures are coarser.")
]
Only = Annotated[
    list[str] | None, option("NAME", f"Only this part, repeatable: {', '.join(_SECTIONS)}.")
]


def make_app() -> typer.Typer:
    """The program: one command."""
    app = typer.Typer(
        rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
    )
    add_command(
        app,
        bench,
        epilog="Each figure is the median of ratios that were taken within rounds of a few dozen"
        " calls, A B A B ...; B is the number of sequences that a step frees and allocates for."
        "\n\nExample: [bold]python -m benchmarks --only stream --only unary[/]",
    )
    return app


def bench(
    credentials: Credentials,
    address: Address = None,
    pool: Pool = "",
    json_file: JsonFile = None,
    as_json: Json = False,
    quick: Quick = False,
    only: Only = None,
) -> None:
    """Measure a server beside a bare gRPC echo and beside Redis.

    Takes about five minutes, and says more on a machine that has nothing else to do.

    Exits with 0 also when a figure misses its bar, with 1 when a measurement fails.
    """
    from benchmarks.context import NO_ACCESS, Access

    for name in only or []:
        if name not in _SECTIONS:
            raise typer.BadParameter(f"--only {name}: must be one of {', '.join(_SECTIONS)}")
    if pool and address is None:
        raise typer.BadParameter("--pool goes with --address")
    if json_file is not None and (json_file.is_dir() or not json_file.parent.is_dir()):
        raise CommandError(USAGE, f"--output {json_file}: is no file in a directory that exists")

    access = NO_ACCESS
    if address is not None:
        access = Access(credentials.token(), credentials.tls_settings())
    found = _measure(address, access, pool, only or _SECTIONS, quick=quick, as_json=as_json)
    if as_json:
        print_json(found)
    if json_file is not None:
        write_file(json_file, json.dumps(found, indent=2) + "\n")


def _measure(
    address: str | None,
    access: Access,
    pool: str,
    chosen: Sequence[str],
    *,
    quick: bool,
    as_json: bool,
) -> dict[str, object]:
    """Measure, show the table, and give everything as JSON has it."""
    from benchmarks import machine, placement, report
    from benchmarks.context import FULL, QUICK
    from benchmarks.run import SECTIONS, run
    from benchmarks.workload import BenchError

    effort = QUICK if quick else FULL
    weight = sum(SECTIONS[name].weight for name in chosen)
    try:
        with placement.client_core(), _progress(weight) as begin:
            results = asyncio.run(run(address, pool, chosen, begin, effort, access))
    except BenchError as error:
        raise CommandError(REFUSED, str(error)) from None
    facts = machine.facts()
    report.show(error_console() if as_json else console(), results, facts)
    return report.document(results, facts, effort)


@contextmanager
def _progress(weight: float) -> Iterator[Callable[[str, float], Callable[[float], None]]]:
    """A bar over all sections, drawn between measurements only."""
    errors = error_console()
    with Progress(
        TextColumn("{task.description:16}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=errors,
        auto_refresh=False,
        transient=True,
        disable=not errors.is_terminal,
    ) as progress:
        task = progress.add_task("starting", total=weight)
        behind = 0.0

        def begin(title: str, share: float) -> Callable[[float], None]:
            nonlocal behind
            start, behind = behind, behind + share
            shown = start
            progress.update(task, description=title, completed=start, refresh=True)

            def tick(done: float) -> None:
                nonlocal shown
                now = start + done * share
                if now - shown >= _REFRESH * weight:
                    shown = now
                    progress.update(task, completed=now, refresh=True)

            return tick

        yield begin
