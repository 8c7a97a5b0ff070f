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

from kvblock.cli import belief
from kvblock.cli.failures import REFUSED
from kvblock.cli.options import (
    Address,
    AnyEngine,
    AnyPool,
    Json,
    Pool,
    Timeout,
    connect,
    with_credentials,
)
from kvblock.cli.output import console, number, plain, print_json, print_json_rows, table

if TYPE_CHECKING:
    from kvblock import AuditReport, SequenceInfo

_SHOWN_MAX = 100

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
    app.command(epilog="Example: [bold]kvblock pools --json[/]")(pools)
    app.command(epilog="Example: [bold]kvblock sequences --engine engine-0 | head[/]")(sequences)
    app.command(epilog="Example: [bold]kvblock audit && echo clean[/]")(audit)


@with_credentials
def pools(as_json: Json = False, address: Address = None, timeout: Timeout = 5.0) -> None:
    """List the pools as they were configured or created."""
    with connect(address, timeout) as kv:
        answer = kv.list_pools()
    if as_json:
        print_json({"pools": plain(answer)})
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


@with_credentials
def sequences(
    pool: Pool = "",
    engine: AnyEngine = "",
    with_blocks: WithBlocks = False,
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """List the sequences of a pool, in order of engine and id."""
    with connect(address, timeout, pool) as kv:
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
    for row in _with(first, rows):
        blocks = "".join(f" {block}" for block in row.block_numbers)
        sequence = f"{number(row.num_blocks):>10}  {row.sequence_id:>20}  {row.engine}"
        sys.stdout.write(f"{sequence}{blocks and ' '}{blocks}\n")


def _with(first: SequenceInfo, rest: Iterator[SequenceInfo]) -> Iterator[SequenceInfo]:
    yield first
    yield from rest


@with_credentials
def audit(
    pool: AnyPool = "",
    from_file: From = None,
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 60.0,
) -> None:
    """Recount every block and report what does not add up.

    A pool waits while it is counted. Exits with 1 when anything is wrong.

    With --from, what engines believe they hold is compared with what the server has, too.
    """
    beliefs = [] if from_file is None else belief.read(from_file)
    with connect(address, timeout) as kv:
        reports = kv.audit(pool=pool)
        comparisons = [belief.compare(kv, one) for one in beliefs]
    if as_json:
        answer = {"reports": plain(reports)}
        print_json(answer if from_file is None else answer | {"comparisons": plain(comparisons)})
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
            "[green]clean[/]" if report.clean else "[bold red]wrong[/]",
            number(report.total_blocks),
            number(report.free_blocks),
            number(report.held_blocks),
            number(report.quarantined_blocks),
            number(report.sequences),
        )
    out = console()
    out.print(made)
    for report in reports:
        for violation in report.violations:
            out.print(f"{report.pool}: {violation}", markup=False, soft_wrap=True)


def _print_comparisons(comparisons: list[belief.Comparison]) -> None:
    made = table("POOL", "ENGINE", "RESULT", "EPOCH", "SEQUENCES", "BLOCKS", left=3)
    for one in comparisons:
        made.add_row(
            one.pool,
            one.engine,
            "[bold red]differs[/]" if one.differences else "[green]same[/]",
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
            out.print(
                f"{where}: the pool changed each of the {belief.ATTEMPTS} times that it was read;"
                " this may be of several moments",
                markup=False,
                soft_wrap=True,
            )
        for difference in one.differences[:_SHOWN_MAX]:
            told = f"{where}: {difference.kind.name}: {difference.text}"
            out.print(told, markup=False, soft_wrap=True)
        if len(one.differences) > _SHOWN_MAX:
            more = number(len(one.differences) - _SHOWN_MAX)
            out.print(f"{where}: {more} more; --json has them all", markup=False)
