"""`kvblock engines` and `reclaim`: who uses the pools, and how to end one that is gone.

Rules:
- A reclaim asks first on a terminal, and then means the lease that it has shown: one that began
  since is left alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock.cli.belief import default_pool
from kvblock.cli.blocks import counted
from kvblock.cli.failures import REFUSED, note_change
from kvblock.cli.options import Address, AnyPool, Json, Pool, Timeout, connect
from kvblock.cli.output import console, number, print_json, print_json_rows, table

if TYPE_CHECKING:
    from kvblock import Client, EngineInfo

Name = Annotated[str, typer.Argument(metavar="ENGINE", help="The engine's name.")]
Epoch = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**64 - 1,
        metavar="N",
        help="Only if this is the epoch of its lease. Default: whatever it is.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(epilog="Example: [bold]kvblock engines --pool main[/]")(engines)
    app.command(epilog="Example: [bold]kvblock reclaim engine-0 --yes[/]")(reclaim)


def engines(
    pool: AnyPool = "", as_json: Json = False, address: Address = None, timeout: Timeout = 5.0
) -> None:
    """List the engines that have a sequence or a lease."""
    with connect(address, timeout) as kv:
        rows = kv.list_engines(pool=pool)
        if as_json:
            print_json_rows("engines", rows)
            return
        found = list(rows)
    if not found:
        console().print("no engines")
        return
    made = table("POOL", "ENGINE", "HELD", "SEQUENCES", "EPOCH", "EXPIRES IN", "STREAM", left=2)
    for row in found:
        made.add_row(
            row.pool,
            row.engine,
            number(row.held_blocks),
            number(row.sequences),
            str(row.epoch) if row.epoch else "no lease",
            "" if row.lease_expires_in is None else f"{row.lease_expires_in:.1f} s",
            "yes" if row.has_stream else "no",
        )
    console().print(made)


def reclaim(
    engine: Name,
    epoch: Epoch = 0,
    yes: Yes = False,
    pool: Pool = "",
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """Take the blocks of an engine that is gone.

    Its lease ends, and its blocks are free after the pool's quarantine.

    If it is not gone after all, its session ends with STALE_EPOCH.

    Exits with 1 when there is no such engine.
    """
    with connect(address, timeout, pool) as kv:
        if sys.stdin.isatty() and not yes:
            found = _find(kv, pool, engine)
            if found is not None:
                if not _confirmed(found):
                    console().print("nothing was changed")
                    raise typer.Exit(REFUSED)
                epoch = epoch or found.epoch
        reclaimed = kv.reclaim_engine(engine, epoch=epoch)
        note_change()
    if as_json:
        print_json({"reclaimed_blocks": reclaimed})
    else:
        console().print(f"reclaimed {counted(reclaimed)} of engine {engine}", markup=False)


def _find(kv: Client, pool: str, engine: str) -> EngineInfo | None:
    name = pool or default_pool(kv)
    rows = kv.list_engines(pool=name) if name else iter(())
    return next((one for one in rows if one.engine == engine), None)


def _confirmed(found: EngineInfo) -> bool:
    lease = "has no lease"
    if found.lease_expires_in is not None:
        stream = "an open stream" if found.has_stream else "no stream"
        lease = f"has a lease for {found.lease_expires_in:.1f} s more and {stream}"
    held = counted(found.held_blocks)
    question = f"engine {found.engine} in pool {found.pool} holds {held} and {lease}."
    # Not typer's own: that writes a blank to stdout, where the answer goes.
    sys.stderr.write(f"{question} Take them? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
