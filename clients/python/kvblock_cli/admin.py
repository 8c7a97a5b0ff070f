"""`kvblock pools`, `sequences` and `audit`: what operators look at.

Rules:
- Sequences are fetched and printed page by page, so that a listing of any length needs little
  memory and starts at once; also in JSON.
- An audit that finds anything, on either side, exits with 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli import engine_tables
from kvblock_cli.failures import REFUSED
from kvblock_cli.options import AnyEngine, AnyPool, Json, Pool, Server, option
from kvblock_cli.output import (
    Column,
    console,
    cut,
    number,
    print_answer,
    print_json,
    print_rows,
    say,
    table_of,
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
    option(
        "FILE.json",
        "Compare with what engines have in their tables: an object like"
        ' {"pool": "main", "engine": "a", "epoch": 3, "tables": {"10": \\[0, 1]}} or a list of'
        " such; - reads stdin.",
        "--from",
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
    print_answer({"pools": answer}, table_of(answer, _POOLS), as_json=as_json)


_POOLS: dict[str, Column] = {
    "POOL": "pool",
    "BLOCKS": "total_blocks",
    "BLOCK SIZE": "block_size",
    "DEVICE": lambda row: str(row.device_id),
    "DEFAULT": "is_default",
}


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
        width = terminal_width()
        left = None if width is None else width - _BEFORE_ENGINE

        def line(row: SequenceInfo) -> str:
            blocks = "".join(f" {block}" for block in row.block_numbers)
            engine = cut(row.engine, left)
            shown = f"{number(row.num_blocks):>10}  {row.sequence_id:>20}  {engine}"
            return f"{shown}{blocks and ' '}{blocks}"

        head = f"{'BLOCKS':>10}  {'SEQUENCE':>20}  ENGINE"
        print_rows("sequences", rows, head, line, as_json=as_json)


def audit(
    server: Server,
    pool: AnyPool = "",
    from_file: From = None,
    as_json: Json = False,
) -> None:
    """Recount every block and report what does not add up.

    A pool waits while it is counted. Exits with 1 when anything is wrong.

    With --from, what engines have in their tables is compared with what the server has, too.
    """
    files = [] if from_file is None else engine_tables.read(from_file)
    with server.connect() as kv:
        reports = kv.audit(pool=pool)
        comparisons = [engine_tables.compare(kv, one) for one in files]
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
    console().print(table_of(reports, _REPORTS, left=2))
    for report in reports:
        for violation in report.violations:
            say(f"{report.pool}: {violation}")


_REPORTS: dict[str, Column] = {
    "POOL": "pool",
    "RESULT": lambda row: _result("clean" if row.clean else "wrong", good=row.clean),
    "TOTAL": "total_blocks",
    "FREE": "free_blocks",
    "HELD": "held_blocks",
    "QUARANTINE": "quarantined_blocks",
    "SEQUENCES": "sequences",
}
_COMPARISONS: dict[str, Column] = {
    "POOL": "pool",
    "ENGINE": "engine",
    "RESULT": lambda row: _result(
        "differs" if row.differences else "same", good=not row.differences
    ),
    "EPOCH": lambda row: str(row.epoch or "no lease"),
    "SEQUENCES": "sequences",
    "BLOCKS": "blocks",
}


def _result(word: str, *, good: bool) -> Text:
    return Text(word, "green" if good else "bold red")


def _print_comparisons(comparisons: list[engine_tables.Comparison]) -> None:
    out = console()
    out.print()
    out.print(table_of(comparisons, _COMPARISONS, left=3))
    for one in comparisons:
        where = f"{one.pool}, {one.engine}"
        if not one.at_one_moment:
            say(
                f"{where}: the pool changed each of the {engine_tables.ATTEMPTS} times that it was"
                " read; this may be of several moments"
            )
        for difference in one.differences[:_SHOWN_MAX]:
            say(f"{where}: {difference.kind.name}: {difference.text}")
        if len(one.differences) > _SHOWN_MAX:
            more = number(len(one.differences) - _SHOWN_MAX)
            say(f"{where}: {more} more; --json has them all")
