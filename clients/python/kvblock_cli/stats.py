"""`kvblock stats`: pools and engines at one moment, or over and over.

Rules:
- In JSON it is StatsResponse; with `--watch` one such object on each line.
- A server that goes away ends the watch like any call to it.
- An engine that is named has to be there when the command begins.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from kvblock_cli.failures import REFUSED, CommandError
from kvblock_cli.options import AnyEngine, AnyPool, Json, Server
from kvblock_cli.output import console, number, plain, print_answer, print_json, seconds_left
from kvblock_cli.tables import Column, share, table_of, unusual, with_recall

if TYPE_CHECKING:
    from kvblock import Client, ServerStats

_INTERVAL = 2.0
_NAMES_MAX = 20
_REASON = "ENGINE_NOT_FOUND"

Interval = Annotated[
    float | None,
    typer.Argument(
        min=0.05,
        max=86_400,
        help="With --watch: seconds between two looks. Default: 2.",
        show_default=False,
    ),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")]


def stats(
    server: Server,
    interval: Interval = None,
    watch: Watch = False,
    pool: AnyPool = "",
    engine: AnyEngine = "",
    as_json: Json = False,
) -> None:
    """Show the pools, who holds their blocks, and counters.

    Exits with 1 when there is no such pool or engine.
    """
    if interval is not None and not watch:
        raise typer.BadParameter("an interval goes with --watch")
    with server.connect() as kv:
        answer = kv.stats(pool=pool, engine=engine)
        # What was asked for by name is always in a row, so that a row alone says nothing.
        rows = [one for found in answer.pools for one in found.engines]
        if engine and not any(one.attached or one.sequences or one.held_blocks for one in rows):
            raise _no_engine(kv, pool, engine)
        if watch:
            _watch(kv, pool, engine, interval or _INTERVAL, as_json=as_json)
    print_answer(document(answer), overview(answer), as_json=as_json)


def _no_engine(kv: Client, pool: str, engine: str) -> CommandError:
    from kvblock import PermissionDeniedError

    where = f"in pool {pool!r}" if pool else "in any pool"
    text = f"engine {engine!r} has neither a block nor a lease {where}"
    try:
        pools = kv.stats(pool=pool).pools
    except PermissionDeniedError:
        return CommandError(REFUSED, text, reason=_REASON)
    names = sorted({one.engine for found in pools for one in found.engines})
    more = f" and {number(len(names) - _NAMES_MAX)} more" if len(names) > _NAMES_MAX else ""
    there = ", ".join(names[:_NAMES_MAX]) + more if names else "none"
    return CommandError(REFUSED, f"{text}; the engines there: {there}", reason=_REASON)


def _watch(kv: Client, pool: str, engine: str, interval: float, *, as_json: bool) -> None:
    out = console()
    on_screen = out.is_terminal and not as_json
    live = Live(console=out, auto_refresh=False, vertical_overflow="crop") if on_screen else None
    with live or nullcontext():
        while True:
            answer = kv.stats(pool=pool, engine=engine)
            if as_json:
                print_json(document(answer), one_line=True)
            elif live:
                live.update(overview(answer), refresh=True)
            else:
                out.print(overview(answer))
                sys.stdout.flush()
            time.sleep(interval)


def document(answer: ServerStats) -> dict[str, Any]:
    """The answer as StatsResponse has it."""
    found = plain(answer)
    assert isinstance(found, dict)
    for row, pool in zip(found["pools"], answer.pools, strict=True):
        row["refusals"] = [{"reason": one.name, "count": n} for one, n in pool.refusals.items()]
    return found


def overview(answer: ServerStats) -> RenderableType:
    """The answer for people: pools, their counters, and the engines where there are any."""
    state = with_recall(unusual(_STATE, answer.pools), answer.pools)
    parts: list[RenderableType] = [table_of(answer.pools, state), ""]
    parts.append(table_of(answer.pools, _COUNTERS))
    engines = [(pool, engine) for pool in answer.pools for engine in pool.engines]
    if engines:
        columns = unusual(_ENGINES, (engine for _, engine in engines))
        columns = dict(with_recall(columns, engines, lambda row: row[1]))
        parts += ["", table_of(engines, columns, left=2)]
    return Group(*parts)


_STATE: dict[str, Column] = {
    "POOL": "pool",
    "TOTAL": "total_blocks",
    "FREE": "free_blocks",
    "HELD": "held_blocks",
    "ACQUIRED": "acquired_blocks",
    "QUARANTINE": "quarantined_blocks",
    "RESERVED": "reserved_blocks",
    "USE": lambda pool: share(pool.held_blocks, pool.issuable_blocks),
    "SEQUENCES": "sequences",
    "WAITING": "waiting",
}
_COUNTERS: dict[str, Column] = {
    "POOL": "pool",
    "ALLOCATED": "allocated_blocks_total",
    "FREED": "freed_blocks_total",
    "RECLAIMED": "reclaimed_blocks_total",
    "EXPIRED": "expired_leases_total",
    "REFUSED": lambda pool: number(sum(pool.refusals.values())),
    "BLOCK SIZE": "block_size",
    "DEVICE": lambda pool: str(pool.device_id),
}
_ENGINES: dict[str, Column] = {
    "POOL": lambda row: row[0].pool,
    "ENGINE": lambda row: row[1].engine,
    "HELD": lambda row: number(row[1].held_blocks),
    "ACQUIRED": lambda row: number(row[1].acquired_blocks),
    "SHARE": lambda row: share(row[1].held_blocks, row[0].issuable_blocks),
    "SEQUENCES": lambda row: number(row[1].sequences),
    "EPOCH": lambda row: str(row[1].epoch or "-"),
    "LEASE": lambda row: seconds_left(row[1].lease_expires_in) or "none",
}
