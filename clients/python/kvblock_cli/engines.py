"""`kvblock engines` and `reclaim`: who uses the pools, and how to end one that is gone.

Rules:
- A reclaim asks first on a terminal, and then means the lease that it has shown: one that began
  since is left alone. An engine that is alive takes --force; the server sees to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kvblock_cli import confirm
from kvblock_cli.blocks import counted
from kvblock_cli.confirm import Yes
from kvblock_cli.engine_tables import default_pool
from kvblock_cli.failures import REFUSED, CommandError, note_change
from kvblock_cli.options import AnyPool, Json, Pool, Server, option
from kvblock_cli.output import (
    Column,
    console,
    print_answer,
    print_json_rows,
    printable,
    seconds_left,
    table_of,
)
from kvblock_cli.register import add_command

if TYPE_CHECKING:
    from kvblock import Client, EngineInfo

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


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    add_command(app, engines, epilog="Example: [bold]kvblock engines --pool main[/]")
    add_command(app, reclaim, epilog="Example: [bold]kvblock reclaim engine-0 --yes[/]")


def engines(server: Server, pool: AnyPool = "", as_json: Json = False) -> None:
    """List the engines that have a sequence or a lease."""
    with server.connect() as kv:
        rows = kv.list_engines(pool=pool)
        if as_json:
            print_json_rows("engines", rows)
            return
        found = list(rows)
    console().print(table_of(found, _ENGINES, left=2) if found else "no engines")


_ENGINES: dict[str, Column] = {
    "POOL": "pool",
    "ENGINE": "engine",
    "HELD": "held_blocks",
    "SEQUENCES": "sequences",
    "EPOCH": lambda row: str(row.epoch or "no lease"),
    "EXPIRES IN": lambda row: seconds_left(row.lease_expires_in),
    "STREAM": "has_stream",
}


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
            _refuse_when_alive(found, force=force)
            confirm.ask(_question(found))
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
    text = f"engine {engine!r} has neither a sequence nor a lease in pool {pool!r}"
    raise CommandError(REFUSED, text, reason="ENGINE_NOT_FOUND")


def _refuse_when_alive(found: EngineInfo, *, force: bool) -> None:
    """Say what the server would, before a question that cannot help."""
    if found.lease_expires_in and not force:
        raise _alive(f"engine {found.engine!r} in pool {found.pool!r} {_lease(found)}")


def _alive(text: str) -> CommandError:
    hint = "--force takes the blocks of an engine whose lease has not run out"
    return CommandError(REFUSED, text, hint, reason="ENGINE_ATTACHED")


def _question(found: EngineInfo) -> str:
    held = counted(found.held_blocks)
    where = f"engine {found.engine} in pool {found.pool}"
    return f"{where} holds {held} and {_lease(found)}. Take them?"


def _lease(found: EngineInfo) -> str:
    if found.lease_expires_in is None:
        return "has no lease"
    stream = "an open stream" if found.has_stream else "no stream"
    heard = f"its last heartbeat was {found.since_heartbeat or 0:.1f} s ago"
    return f"has a lease for {found.lease_expires_in:.1f} s more and {stream}; {heard}"
