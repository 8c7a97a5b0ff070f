"""`kvblock blocks` and `holder`: who has which block.

Rules:
- Blocks are fetched and printed page by page, also in JSON.
- `holder` exits with 1 when one of the blocks is held by nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock_cli.engine_tables import owner_text
from kvblock_cli.failures import REFUSED
from kvblock_cli.options import AnyEngine, Json, Pool, Server, option
from kvblock_cli.output import cut, print_json, print_rows, say, terminal_width
from kvblock_cli.register import add_command

if TYPE_CHECKING:
    from kvblock import BlockInfo

_BEFORE_TRACE, _GAP = 68, 2
"""Characters in a row of `blocks` before its trace, and between two columns."""
_TRACE, _TRACE_MIN, _ENGINE_MIN = 32, 8, 16

BlockOption = Annotated[
    list[int] | None,
    option(
        "N",
        "Only this block; once for each. Default: all that were ever used.",
        "--block",
        "-b",
        min=0,
        max=2**32 - 1,
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
    add_command(app, blocks, epilog="Example: [bold]kvblock blocks --engine engine-0 | head[/]")
    add_command(app, holder, epilog="Example: [bold]kvblock holder 17[/]")


def blocks(
    server: Server,
    block: BlockOption = None,
    engine: AnyEngine = "",
    held: Held = False,
    pool: Pool = "",
    as_json: Json = False,
) -> None:
    """List the blocks of a pool and who was granted them last.

    They come in order of their numbers. With --engine, those that it holds, and those that it lost
    and that are in quarantine.
    """
    from kvblock import BlockState

    states = [BlockState.HELD] if held else []
    with server.connect(pool) as kv:
        rows = kv.list_blocks(engine=engine, block_numbers=block or (), states=states)
        trace, name = _widths(terminal_width())
        head = _line(("BLOCK", "STATE", "SEQUENCE", "GRANTED", "TRACE", "ENGINE"), trace, name)
        print_rows(
            "blocks", rows, head, lambda row: _line(_cells(row), trace, name), as_json=as_json
        )


def holder(
    server: Server,
    block: BlockArguments,
    pool: Pool = "",
    as_json: Json = False,
) -> None:
    """Tell who holds a block, since when, and under which trace.

    Exits with 1 when nobody does.
    """
    from kvblock import BlockState

    with server.connect(pool) as kv:
        rows = list(kv.list_blocks(block_numbers=block))
    if as_json:
        print_json({"blocks": rows})
    else:
        for row in rows:
            say(_sentence(row))
    if any(row.state is not BlockState.HELD for row in rows):
        raise typer.Exit(REFUSED)


def _widths(terminal: int | None) -> tuple[int, int | None]:
    """How wide the traces and the names of engines are, 0: not there, None: as wide as they are.

    What is elided on a narrow terminal is the trace first, as `holder` tells it, too.
    """
    if terminal is None:
        return _TRACE, None
    left = terminal - _BEFORE_TRACE
    trace = min(_TRACE, left - _GAP - _ENGINE_MIN)
    if trace < _TRACE_MIN:
        return 0, left
    return trace, left - trace - _GAP


def _cells(row: BlockInfo) -> tuple[str, ...]:
    return (
        str(row.block_number),
        row.state.name.lower().replace("_", " "),
        "-" if row.sequence_id is None else str(row.sequence_id),
        "-" if row.since is None else _local(row.since),
        row.trace_id or "-",
        row.engine or "-",
    )


def _line(cells: tuple[str, ...], trace: int, engine: int | None) -> str:
    block, state, sequence, granted, trace_id, name = cells
    shown = f"{block:>10}  {state:<11}  {sequence:>20}  {granted:<19}"
    if trace:
        shown += f"  {cut(trace_id, trace):<{trace}}"
    return f"{shown}  {cut(name, engine)}"


def _sentence(row: BlockInfo) -> str:
    told = f"block {row.block_number}: {owner_text(row)}"
    if row.since is not None:
        told += f"; granted {_local(row.since)}"
    return f"{told}, trace {row.trace_id}" if row.trace_id else told


def _local(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds:.0f} s"  # A time that this machine's calendar does not have.
