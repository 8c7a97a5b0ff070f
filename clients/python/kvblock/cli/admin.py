"""`kvblock pools`, `sequences` and `audit`: what operators look at.

Rules:
- Sequences are fetched and printed page by page, so that a listing of any length needs little
  memory and starts at once; also in JSON.
- An audit that finds anything exits with 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

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
from kvblock.cli.output import console, number, plain, print_json, table

if TYPE_CHECKING:
    from kvblock import AuditReport, SequenceInfo


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(epilog="Example: [bold]kvblock pools --json[/]")(pools)
    app.command(epilog="Example: [bold]kvblock sequences --engine engine-0 | head[/]")(sequences)
    app.command(epilog="Example: [bold]kvblock audit && echo clean[/]")(audit)


@with_credentials
def pools(as_json: Json = False, address: Address = None, timeout: Timeout = 5.0) -> None:
    """List the pools as they were configured."""
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
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """List the sequences of a pool, in order of engine and id."""
    with connect(address, timeout, pool) as kv:
        rows = kv.list_sequences(engine=engine)
        if as_json:
            _print_json_rows(rows)
        else:
            _print_rows(rows)


def _print_json_rows(rows: Iterator[SequenceInfo]) -> None:
    first = next(rows, None)
    sys.stdout.write('{"sequences": [')
    if first is not None:
        sys.stdout.write(json.dumps(plain(first)))
    for row in rows:
        sys.stdout.write(f",\n{json.dumps(plain(row))}")
    sys.stdout.write("]}\n")


def _print_rows(rows: Iterator[SequenceInfo]) -> None:
    out = console()
    first = next(rows, None)
    if first is None:
        out.print("no sequences")
        return
    out.print(f"{'BLOCKS':>10}  {'SEQUENCE':>20}  ENGINE", style="bold", soft_wrap=True)
    for row in _with(first, rows):
        sys.stdout.write(f"{number(row.num_blocks):>10}  {row.sequence_id:>20}  {row.engine}\n")


def _with(first: SequenceInfo, rest: Iterator[SequenceInfo]) -> Iterator[SequenceInfo]:
    yield first
    yield from rest


@with_credentials
def audit(
    pool: AnyPool = "", as_json: Json = False, address: Address = None, timeout: Timeout = 60.0
) -> None:
    """Recount every block and report what does not add up.

    A pool waits while it is counted. Exits with 1 when anything is wrong.
    """
    with connect(address, timeout) as kv:
        reports = kv.audit(pool=pool)
    if as_json:
        print_json({"reports": plain(reports)})
    else:
        _print_reports(reports)
    if not all(reports):
        raise typer.Exit(REFUSED)


def _print_reports(reports: tuple[AuditReport, ...]) -> None:
    made = table("POOL", "RESULT", "TOTAL", "FREE", "HELD", "SEQUENCES", left=2)
    for report in reports:
        made.add_row(
            report.pool,
            "[green]clean[/]" if report.clean else "[bold red]wrong[/]",
            number(report.total_blocks),
            number(report.free_blocks),
            number(report.held_blocks),
            number(report.sequences),
        )
    out = console()
    out.print(made)
    for report in reports:
        for violation in report.violations:
            out.print(f"{report.pool}: {violation}", markup=False, soft_wrap=True)
