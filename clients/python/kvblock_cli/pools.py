"""`kvblock pools`, `pool create`, `pool delete`, `audit` and `drain`: pools and the whole server.

Rules:
- What takes something away asks first, or demands --yes.
- An audit that finds anything, on either side, exits with 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kvblock_cli import confirm, engine_tables
from kvblock_cli.confirm import Yes
from kvblock_cli.failures import REFUSED, note_change
from kvblock_cli.options import AnyPool, Json, Server, option
from kvblock_cli.output import (
    console,
    counted,
    number,
    print_answer,
    print_json,
    printable,
    say,
)
from kvblock_cli.register import add_command, epilog_of
from kvblock_cli.tables import Column, table_of, unusual

if TYPE_CHECKING:
    from kvblock import AuditReport

_SHOWN_MAX = 100

Name = Annotated[str, typer.Argument(metavar="NAME", help="The pool's name.")]
Total = Annotated[
    int, typer.Argument(metavar="TOTAL", help="How many blocks it has.", show_default=False)
]
BlockSize = Annotated[int, option("TOKENS", "Token slots per block.", min=1, show_default=True)]
Device = Annotated[
    int, option("ID", "The device whose memory the blocks number.", min=0, show_default=True)
]
Quarantine = Annotated[
    float | None,
    option(
        "SECONDS",
        "How long the blocks of a vanished engine wait before they are free."
        " Default: as long as its lease would have lasted without renewal.",
        min=0.0,
    ),
]
Reserved = Annotated[
    int,
    option(
        "BLOCKS",
        "How many blocks, the first ones, are never issued.",
        "--reserved",
        min=0,
        show_default=True,
    ),
]
BlockBytes = Annotated[
    int, option("BYTES", "Bytes of one block; 0: not told.", min=0, show_default=True)
]
Regions = Annotated[
    int,
    option("N", "Arrays that the pool's memory is divided into.", min=1, show_default=True),
]
Layout = Annotated[
    str, option("TEXT", "How the bytes of a block are arranged, in the words of its engines.")
]
Memory = Annotated[
    str,
    option(
        "WORD",
        "Where its bytes are: none, shm (a file that the server makes) or a URI.",
        show_default=True,
    ),
]
From = Annotated[
    Path | None,
    option(
        "FILE.json",
        "Compare with what engines have in their tables, and acquired: an object like"
        ' {"pool": "main", "engine": "a", "epoch": 3, "tables": {"10": \\[0, 1]}, "acquired":'
        " \\[7, 4]} or a list of such; - reads stdin.",
        "--from",
    ),
]
_POOLS: dict[str, Column] = {
    "POOL": "pool",
    "BLOCKS": "total_blocks",
    "BLOCK SIZE": "block_size",
    "DEVICE": lambda row: str(row.device_id),
    "DEFAULT": "is_default",
    "RESERVED": "reserved_blocks",
    "BLOCK BYTES": lambda row: number(row.block_bytes) if row.block_bytes else "-",
    "REGIONS": "regions",
    "LAYOUT": lambda row: printable(row.layout) or "-",
    "MEMORY": lambda row: printable(row.memory_uri) or "-",
}
_REPORTS: dict[str, Column] = {
    "POOL": "pool",
    "RESULT": lambda row: _result(row.clean, "clean", "wrong"),
    "TOTAL": "total_blocks",
    "FREE": "free_blocks",
    "HELD": "held_blocks",
    "ACQUIRED": "acquired_blocks",
    "QUARANTINE": "quarantined_blocks",
    "RESERVED": "reserved_blocks",
    "SEQUENCES": "sequences",
}
_COMPARISONS: dict[str, Column] = {
    "POOL": "pool",
    "ENGINE": "engine",
    "RESULT": lambda row: _result(not row.differences, "same", "differs"),
    "EPOCH": lambda row: str(row.epoch or "no lease"),
    "SEQUENCES": "sequences",
    "BLOCKS": "blocks",
    "ACQUIRED": "acquired_blocks",
}


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    add_command(app, pools, example="pools --json")
    group = typer.Typer(no_args_is_help=True)
    about = "Create and delete pools while the server runs."
    example = "pool create gpu1 8192 --device 1"
    app.add_typer(group, name="pool", help=about, epilog=epilog_of(example))
    add_command(group, create, example=example)
    add_command(group, delete, example="pool delete gpu1 --yes")
    # A pool is recounted whole.
    add_command(app, audit, example="audit && echo clean", timeout=60.0)
    add_command(app, drain, example="drain --yes")


def pools(server: Server, as_json: Json = False) -> None:
    """List the pools as they were configured or created."""
    with server.connect() as kv:
        answer = kv.list_pools()
    print_answer({"pools": answer}, table_of(answer, unusual(_POOLS, answer)), as_json=as_json)


def create(
    server: Server,
    name: Name,
    total_blocks: Total,
    block_size: BlockSize = 16,
    device: Device = 0,
    reserved: Reserved = 0,
    block_bytes: BlockBytes = 0,
    regions: Regions = 1,
    layout: Layout = "",
    memory: Memory = "none",
    quarantine: Quarantine = None,
    as_json: Json = False,
) -> None:
    """Create a pool.

    Exits with 1 when the name is taken, or the server has as many pools as it may.
    """
    with server.connect() as kv:
        made = kv.create_pool(
            name,
            total_blocks,
            block_size=block_size,
            device_id=device,
            quarantine=quarantine,
            reserved_blocks=reserved,
            block_bytes=block_bytes,
            regions=regions,
            layout=layout,
            memory=memory,
        )
        note_change()
    size = f"{counted(made.total_blocks)} of {number(made.block_size)} tokens"
    shown = f"created pool {made.pool}: {size} on device {made.device_id}"
    if made.reserved_blocks:
        shown += f", {number(made.reserved_blocks)} of them reserved"
    print_answer({"pool": made}, shown, as_json=as_json)


def delete(server: Server, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a pool that nobody uses.

    Exits with 1 while blocks of it are held or in quarantine, or an engine has a lease in it.

    A pool of the server's configuration comes back, empty, when the server starts again.
    """
    if confirm.must_ask("deletes a pool", yes=yes):
        confirm.ask(f"pool {name} will be gone. Delete it?")
    with server.connect() as kv:
        kv.delete_pool(name)
        note_change()
    print_answer({}, f"deleted pool {name}", as_json=as_json)


def drain(server: Server, yes: Yes = False, as_json: Json = False) -> None:
    """Let the server shut down in order, as SIGTERM does.

    It takes no new work, answers what it is doing, and ends.

    This command does not wait for that.
    """
    if confirm.must_ask("ends the server", yes=yes):
        confirm.ask("The server will take no new work, and end. Drain it?")
    with server.connect() as kv:
        kv.drain()
        note_change()
    print_answer({}, "the server is draining", as_json=as_json)


def audit(
    server: Server, pool: AnyPool = "", from_file: From = None, as_json: Json = False
) -> None:
    """Recount every block and report what does not add up.

    A pool waits while it is counted. Exits with 1 when anything is wrong.

    With --from, what engines have in their tables, and acquired, is compared with what the server
    has, too.
    """
    files = [] if from_file is None else engine_tables.read(from_file)
    with server.connect() as kv:
        reports = kv.audit(pool=pool)
        comparisons = [engine_tables.compare(kv, one) for one in files]
    if as_json:
        answer: dict[str, object] = {"reports": reports}
        if from_file is not None:
            answer["comparisons"] = comparisons
        print_json(answer)
    else:
        _print_reports(reports)
        if comparisons:
            _print_comparisons(comparisons)
    if not all(reports) or any(one.differences for one in comparisons):
        raise typer.Exit(REFUSED)


def _print_reports(reports: tuple[AuditReport, ...]) -> None:
    console().print(table_of(reports, unusual(_REPORTS, reports), left=2))
    for report in reports:
        for violation in report.violations:
            say(f"{report.pool}: {violation}")


def _print_comparisons(comparisons: list[engine_tables.Comparison]) -> None:
    out = console()
    out.print()
    out.print(table_of(comparisons, unusual(_COMPARISONS, comparisons), left=3))
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


def _result(good: bool, yes: str, no: str) -> Text:
    return Text(yes, "green") if good else Text(no, "bold red")
