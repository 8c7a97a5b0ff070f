"""`kvblock stats`: pools and engines at one moment, or over and over.

Rules:
- In JSON it is StatsResponse; with `--watch` one such object on each line.
- A server that goes away ends the watch like any call to it.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from kvblock.cli.options import (
    Address,
    AnyEngine,
    AnyPool,
    Json,
    Timeout,
    connect,
    with_credentials,
)
from kvblock.cli.output import console, number, plain, print_json, share, table

if TYPE_CHECKING:
    from kvblock import Client, PoolStats, ServerStats

_INTERVAL = 2.0

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


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog="Example: [bold]kvblock stats --watch 0.5[/]")(stats)


@with_credentials
def stats(
    interval: Interval = None,
    watch: Watch = False,
    pool: AnyPool = "",
    engine: AnyEngine = "",
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """Show the pools, who holds their blocks, and counters."""
    if interval is not None and not watch:
        raise typer.BadParameter("an interval goes with --watch")
    with connect(address, timeout) as kv:
        if watch:
            _watch(kv, pool, engine, interval or _INTERVAL, as_json=as_json)
        answer = kv.stats(pool=pool, engine=engine)
    if as_json:
        print_json(document(answer))
    else:
        console().print(overview(answer))


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
    made = {"pools": [], "server_epoch": answer.server_epoch}
    return made | {"pools": [_pool_document(pool) for pool in answer.pools]}


def _pool_document(pool: PoolStats) -> dict[str, Any]:
    refusals = [{"reason": reason.name, "count": n} for reason, n in pool.refusals.items()]
    fields = plain(pool)
    assert isinstance(fields, dict)
    return fields | {"refusals": refusals}


def overview(answer: ServerStats) -> RenderableType:
    """The answer for people: pools, their counters, and the engines where there are any."""
    parts: list[RenderableType] = [_state(answer.pools), "", _counters(answer.pools)]
    if any(pool.engines for pool in answer.pools):
        parts += ["", _engines(answer.pools)]
    return Group(*parts)


def _state(pools: tuple[PoolStats, ...]) -> RenderableType:
    made = table("POOL", "TOTAL", "FREE", "HELD", "QUARANTINE", "USE", "SEQUENCES", "WAITING")
    for pool in pools:
        made.add_row(
            pool.pool,
            number(pool.total_blocks),
            number(pool.free_blocks),
            number(pool.held_blocks),
            number(pool.quarantined_blocks),
            share(pool.held_blocks, pool.total_blocks),
            number(pool.sequences),
            number(pool.waiting),
        )
    return made


def _counters(pools: tuple[PoolStats, ...]) -> RenderableType:
    made = table(
        "POOL", "ALLOCATED", "FREED", "RECLAIMED", "EXPIRED", "REFUSED", "BLOCK SIZE", "DEVICE"
    )
    for pool in pools:
        made.add_row(
            pool.pool,
            number(pool.allocated_blocks_total),
            number(pool.freed_blocks_total),
            number(pool.reclaimed_blocks_total),
            number(pool.expired_leases_total),
            number(sum(pool.refusals.values())),
            number(pool.block_size),
            str(pool.device_id),
        )
    return made


def _engines(pools: tuple[PoolStats, ...]) -> RenderableType:
    made = table("POOL", "ENGINE", "HELD", "SHARE", "SEQUENCES", "EPOCH", "LEASE", left=2)
    for pool in pools:
        for engine in pool.engines:
            made.add_row(
                pool.pool,
                engine.engine,
                number(engine.held_blocks),
                share(engine.held_blocks, pool.total_blocks),
                number(engine.sequences),
                str(engine.epoch) if engine.epoch else "-",
                "none" if engine.lease_expires_in is None else f"{engine.lease_expires_in:.1f} s",
            )
    return made
