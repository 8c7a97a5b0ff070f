"""`kvblock pools`, `sequences` and `audit`: what operators look at.

Rules:
- Sequences are fetched and printed page by page, so that a listing of any length needs little
  memory and starts at once; also in JSON.
- An audit that finds anything, on either side, exits with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli import belief
from kvblock_cli.failures import REFUSED
from kvblock_cli.options import AnyEngine, AnyPool, Json, Pool, Server
from kvblock_cli.output import (
    console,
    cut,
    number,
    print_json,
    print_json_rows,
    say,
    table,
    terminal_width,
)
from kvblock_cli.register import add_command

if TYPE_CHECKING:
    from kvblock import AuditReport, SequenceInfo

_SHOWN_MAX = 100
_BEFORE_ENGINE = 34
"""Characters in a row of `sequences` before the engine's name."""

WithBlocks = Annotated[bool, typer.Option("--blocks", help="With their blocks, in table order.")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE.json",
        help="Compare with what engines believe they hold: an object like"
        ' {"pool": "main", "engine": "a", "epoch": 3, "tables": {"10": \\[0, 1]}} or a list of'
        " such; - reads stdin.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    add_command(app, pools, epilog="Example: [bold]kvblock pools --json[/]")
    example = "Example: [bold]kvblock sequences --engine engine-0 | head[/]"
    add_command(app, sequences, epilog=example)
    # A pool is recounted whole.
    add_command(app, audit, epilog="Example: [bold]kvblock audit && echo clean[/]", timeout=60.0)


def pools(server: Server, as_json: Json = False) -> None:
    """List the pools as they were configured or created."""
    with server.connect() as kv:
        answer = kv.list_pools()
    if as_json:
        print_json({"pools": answer})
        return
    made = table("POOL", "BLOCKS", "BLOCK SIZE", "DEVICE", "DEFAULT")
    for pool in answer:
        made.add_row(
            pool.pool,
            number(pool.total_blocks),
            number(pool.block_size),
            str(pool.device_id),
            "yes" if pool.is_default else "no",
        )
    console().print(made)


def sequences(
    server: Server,
    pool: Pool = "",
    engine: AnyEngine = "",
    with_blocks: WithBlocks = False,
    as_json: Json = False,
) -> None:
    """List the sequences of a pool, in order of engine and id."""
    with server.connect(pool) as kv:
        rows = kv.list_sequences(engine=engine, with_block_numbers=with_blocks)
        if as_json:
            print_json_rows("sequences", rows)
        else:
            _print_rows(rows)


def _print_rows(rows: Iterator[SequenceInfo]) -> None:
    out = console()
    first = next(rows, None)
    if first is None:
        out.print("no sequences")
        return
    out.print(f"{'BLOCKS':>10}  {'SEQUENCE':>20}  ENGINE", style="bold", soft_wrap=True)
    width = terminal_width()
    left = None if width is None else width - _BEFORE_ENGINE
    for row in _with(first, rows):
        blocks = "".join(f" {block}" for block in row.block_numbers)
        engine = cut(row.engine, left)
        sequence = f"{number(row.num_blocks):>10}  {row.sequence_id:>20}  {engine}"
        sys.stdout.write(f"{sequence}{blocks and ' '}{blocks}\n")


def _with(first: SequenceInfo, rest: Iterator[SequenceInfo]) -> Iterator[SequenceInfo]:
    yield first
    yield from rest


def audit(
    server: Server,
    pool: AnyPool = "",
    from_file: From = None,
    as_json: Json = False,
) -> None:
    """Recount every block and report what does not add up.

    A pool waits while it is counted. Exits with 1 when anything is wrong.

    With --from, what engines believe they hold is compared with what the server has, too.
    """
    beliefs = [] if from_file is None else belief.read(from_file)
    with server.connect() as kv:
        reports = kv.audit(pool=pool)
        comparisons = [belief.compare(kv, one) for one in beliefs]
    if as_json:
        answer: dict[str, object] = {"reports": reports}
        print_json(answer if from_file is None else answer | {"comparisons": comparisons})
    else:
        _print_reports(reports)
        if comparisons:
            _print_comparisons(comparisons)
    if not all(reports) or any(one.differences for one in comparisons):
        raise typer.Exit(REFUSED)


def _print_reports(reports: tuple[AuditReport, ...]) -> None:
    made = table("POOL", "RESULT", "TOTAL", "FREE", "HELD", "QUARANTINE", "SEQUENCES", left=2)
    for report in reports:
        made.add_row(
            report.pool,
            Text("clean", "green") if report.clean else Text("wrong", "bold red"),
            number(report.total_blocks),
            number(report.free_blocks),
            number(report.held_blocks),
            number(report.quarantined_blocks),
            number(report.sequences),
        )
    console().print(made)
    for report in reports:
        for violation in report.violations:
            say(f"{report.pool}: {violation}")


def _print_comparisons(comparisons: list[belief.Comparison]) -> None:
    made = table("POOL", "ENGINE", "RESULT", "EPOCH", "SEQUENCES", "BLOCKS", left=3)
    for one in comparisons:
        made.add_row(
            one.pool,
            one.engine,
            Text("differs", "bold red") if one.differences else Text("same", "green"),
            str(one.epoch) if one.epoch else "no lease",
            number(one.sequences),
            number(one.blocks),
        )
    out = console()
    out.print()
    out.print(made)
    for one in comparisons:
        where = f"{one.pool}, {one.engine}"
        if not one.at_one_moment:
            say(
                f"{where}: the pool changed each of the {belief.ATTEMPTS} times that it was read;"
                " this may be of several moments"
            )
        for difference in one.differences[:_SHOWN_MAX]:
            say(f"{where}: {difference.kind.name}: {difference.text}")
        if len(one.differences) > _SHOWN_MAX:
            more = number(len(one.differences) - _SHOWN_MAX)
            say(f"{where}: {more} more; --json has them all")
