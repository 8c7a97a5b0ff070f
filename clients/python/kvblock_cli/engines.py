"""`kvblock engines`, `reclaim`, `blocks` and `holder`: who uses the pools, and who has which block.

Rules:
- A reclaim asks first on a terminal, and then means the lease that it has shown: one that began
  since is left alone. An engine that is alive takes --force; the server sees to that.
- Blocks are fetched and printed page by page, also in JSON.
- `holder` exits with 1 when one of the blocks is held by nobody.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock_cli import confirm
from kvblock_cli.confirm import Yes
from kvblock_cli.engine_tables import default_pool, owner_text
from kvblock_cli.failures import REFUSED, CommandError, note_change
from kvblock_cli.options import AnyEngine, AnyPool, Json, Pool, Server, option
from kvblock_cli.output import (
    console,
    counted,
    cut,
    print_answer,
    print_json,
    print_json_rows,
    print_rows,
    printable,
    say,
    seconds_left,
    terminal_width,
)
from kvblock_cli.tables import Column, table_of, unusual, with_recall

if TYPE_CHECKING:
    from kvblock import BlockInfo, Client, EngineInfo

_BEFORE_TRACE, _GAP = 68, 2
"""Characters in a row of `blocks` before its trace, and between two columns."""

_TRACE, _TRACE_MIN, _ENGINE_MIN = 32, 8, 16

Name = Annotated[str, typer.Argument(metavar="ENGINE", help="The engine's name.")]
Epoch = Annotated[
    int,
    option(
        "N",
        "Only if this is the epoch of its lease. Default: whatever it is.",
        min=0,
        max=2**64 - 1,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Also when its lease has not run out: it is alive.")
]
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
Held = Annotated[
    bool, typer.Option("--held", help="Only blocks that are in a block table, or acquired.")
]
_ENGINES: dict[str, Column] = {
    "POOL": "pool",
    "ENGINE": "engine",
    "HELD": "held_blocks",
    "ACQUIRED": "acquired_blocks",
    "SEQUENCES": "sequences",
    "EPOCH": lambda row: str(row.epoch or "no lease"),
    "EXPIRES IN": lambda row: seconds_left(row.lease_expires_in),
    "STREAM": "has_stream",
}


def engines(server: Server, pool: AnyPool = "", as_json: Json = False) -> None:
    """List the engines that have a sequence or a lease."""
    with server.connect() as kv:
        rows = kv.list_engines(pool=pool)
        if as_json:
            print_json_rows("engines", rows)
            return
        found = list(rows)
    columns = with_recall(unusual(_ENGINES, found), found)
    console().print(table_of(found, columns, left=2) if found else "no engines")


def reclaim(
    server: Server,
    engine: Name,
    epoch: Epoch = 0,
    force: Force = False,
    yes: Yes = False,
    pool: Pool = "",
    as_json: Json = False,
) -> None:
    """Take the blocks of an engine that is gone.

    Its lease ends, and its blocks are free after the pool's quarantine.

    If it is not gone after all, its session ends with STALE_EPOCH.

    Exits with 1 when there is no such engine, or its lease has not run out and this is no --force.
    """
    from kvblock import ErrorReason, FailedPreconditionError

    asks = confirm.must_ask("takes all blocks of an engine", yes=yes)
    with server.connect(pool) as kv:
        # Without a default pool the server says so, and takes nothing.
        name = (pool or default_pool(kv)) if asks else ""
        if name:
            found = _find(kv, name, engine)
            if found.lease_expires_in and not force:
                # What the server would say, before a question that cannot help.
                raise _alive(f"engine {engine!r} in pool {name!r} {_lease(found)}")
            where = f"engine {engine} in pool {name}"
            held = counted(found.held_blocks)
            confirm.ask(f"{where} holds {held} and {_lease(found)}. Take them?")
            epoch = epoch or found.epoch
        try:
            reclaimed = kv.reclaim_engine(engine, epoch=epoch, force=force)
        except FailedPreconditionError as error:
            if error.reason is not ErrorReason.ENGINE_ATTACHED:
                raise
            raise _alive(printable(error.message)) from None
        note_change()
    shown = f"reclaimed {counted(reclaimed)} of engine {engine}"
    print_answer({"reclaimed_blocks": reclaimed}, shown, as_json=as_json)


def _find(kv: Client, pool: str, engine: str) -> EngineInfo:
    """What is there to ask about: one that comes later is not taken unasked."""
    for one in kv.list_engines(pool=pool):
        if one.engine == engine:
            return one
    text = f"engine {engine!r} has neither a block nor a lease in pool {pool!r}"
    raise CommandError(REFUSED, text, reason="ENGINE_NOT_FOUND")


def _alive(text: str) -> CommandError:
    hint = "--force takes the blocks of an engine whose lease has not run out"
    return CommandError(REFUSED, text, hint, reason="ENGINE_ATTACHED")


def _lease(found: EngineInfo) -> str:
    if found.lease_expires_in is None:
        return "has no lease"
    stream = "an open stream" if found.has_stream else "no stream"
    heard = f"its last heartbeat was {found.since_heartbeat or 0:.1f} s ago"
    return f"has a lease for {found.lease_expires_in:.1f} s more and {stream}; {heard}"


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


def holder(server: Server, block: BlockArguments, pool: Pool = "", as_json: Json = False) -> None:
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
        _sequence(row),
        "-" if row.since is None else _local(row.since),
        row.trace_id or "-",
        row.engine or "-",
    )


def _sequence(row: BlockInfo) -> str:
    from kvblock import BlockState

    if row.sequence_id is not None:
        return str(row.sequence_id)
    return "acquired" if row.state is BlockState.HELD else "-"


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
