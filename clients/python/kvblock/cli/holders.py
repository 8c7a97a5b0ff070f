"""`kvblock blocks` and `holder`: who has which block.

Rules:
- Blocks are fetched and printed page by page, also in JSON.
- `holder` exits with 1 when one of the blocks is held by nobody.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock.cli.belief import owner_text
from kvblock.cli.failures import REFUSED
from kvblock.cli.options import Address, AnyEngine, Json, Pool, Timeout, connect
from kvblock.cli.output import console, plain, print_json, print_json_rows

if TYPE_CHECKING:
    from kvblock import BlockInfo


BlockOption = Annotated[
    list[int] | None,
    typer.Option(
        "--block",
        "-b",
        min=0,
        max=2**32 - 1,
        metavar="N",
        help="Only this block; once for each. Default: all that were ever used.",
        show_default=False,
    ),
]
BlockArguments = Annotated[
    list[int],
    typer.Argument(
        min=0, max=2**32 - 1, metavar="BLOCK...", help="Block numbers.", show_default=False
    ),
]
Held = Annotated[bool, typer.Option("--held", help="Only blocks that are in a block table.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(epilog="Example: [bold]kvblock blocks --engine engine-0 | head[/]")(blocks)
    app.command(epilog="Example: [bold]kvblock holder 17[/]")(holder)


def blocks(
    block: BlockOption = None,
    engine: AnyEngine = "",
    held: Held = False,
    pool: Pool = "",
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """List the blocks of a pool and who was granted them last.

    They come in order of their numbers. With --engine, those that it holds, and those that it lost
    and that are in quarantine.
    """
    from kvblock import BlockState

    states = [BlockState.HELD] if held else []
    with connect(address, timeout, pool) as kv:
        rows = kv.list_blocks(engine=engine, block_numbers=block or (), states=states)
        if as_json:
            print_json_rows("blocks", rows)
        else:
            _print_rows(rows)


def holder(
    block: BlockArguments,
    pool: Pool = "",
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """Tell who holds a block, since when, and under which trace.

    Exits with 1 when nobody does.
    """
    from kvblock import BlockState

    with connect(address, timeout, pool) as kv:
        rows = list(kv.list_blocks(block_numbers=block))
    if as_json:
        print_json({"blocks": plain(rows)})
    else:
        for row in rows:
            console().print(_sentence(row), markup=False, soft_wrap=True)
    if any(row.state is not BlockState.HELD for row in rows):
        raise typer.Exit(REFUSED)


def _print_rows(rows: Iterator[BlockInfo]) -> None:
    out = console()
    first = next(rows, None)
    if first is None:
        out.print("no blocks")
        return
    head = f"{'BLOCK':>10}  {'STATE':<11}  {'SEQUENCE':>20}  {'GRANTED':<19}  {'TRACE':<32}  ENGINE"
    out.print(head, style="bold", soft_wrap=True)
    _print_row(first)
    for row in rows:
        _print_row(row)


def _print_row(row: BlockInfo) -> None:
    sequence = "-" if row.sequence_id is None else str(row.sequence_id)
    state = row.state.name.lower().replace("_", " ")
    granted = "-" if row.since is None else _local(row.since)
    sys.stdout.write(
        f"{row.block_number:>10}  {state:<11}  {sequence:>20}  {granted:<19}"
        f"  {row.trace_id or '-':<32}  {row.engine or '-'}\n"
    )


def _sentence(row: BlockInfo) -> str:
    told = f"block {row.block_number}: {owner_text(row)}"
    if row.since is not None:
        told += f"; granted {_local(row.since)}"
    return f"{told}, trace {row.trace_id}" if row.trace_id else told


def _local(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
