"""`kvblock pool create`, `pool delete` and `drain`: what operators change about a server."""

from __future__ import annotations

from typing import Annotated

import typer

from kvblock.cli.blocks import counted
from kvblock.cli.failures import note_change
from kvblock.cli.options import Address, Json, Timeout, connect
from kvblock.cli.output import console, number, plain, print_json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The pool's name.")]
Total = Annotated[
    int, typer.Argument(metavar="TOTAL", help="How many blocks it has.", show_default=False)
]
BlockSize = Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Token slots per block.")]
Device = Annotated[
    int, typer.Option(min=0, metavar="ID", help="The device whose memory the blocks number.")
]
Quarantine = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="SECONDS",
        help="How long the blocks of a vanished engine wait before they are free."
        " Default: as long as its lease would have lasted without renewal.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(
        group,
        name="pool",
        help="Create and delete pools while the server runs.",
        epilog="Example: [bold]kvblock pool create gpu1 8192 --device 1[/]",
    )
    group.command(epilog="Example: [bold]kvblock pool create gpu1 8192 --device 1[/]")(create)
    group.command(epilog="Example: [bold]kvblock pool delete gpu1[/]")(delete)
    app.command(epilog="Example: [bold]kvblock drain[/]")(drain)


def create(
    name: Name,
    total_blocks: Total,
    block_size: BlockSize = 16,
    device: Device = 0,
    quarantine: Quarantine = None,
    as_json: Json = False,
    address: Address = None,
    timeout: Timeout = 5.0,
) -> None:
    """Create a pool.

    Exits with 1 when the name is taken, or the server has as many pools as it may.
    """
    with connect(address, timeout) as kv:
        made = kv.create_pool(
            name, total_blocks, block_size=block_size, device_id=device, quarantine=quarantine
        )
        note_change()
    if as_json:
        print_json({"pool": plain(made)})
        return
    size = f"{counted(made.total_blocks)} of {number(made.block_size)} tokens"
    console().print(f"created pool {made.pool}: {size} on device {made.device_id}", markup=False)


def delete(
    name: Name, as_json: Json = False, address: Address = None, timeout: Timeout = 5.0
) -> None:
    """Delete a pool that nobody uses.

    Exits with 1 while blocks of it are held or in quarantine, or an engine has a lease in it.

    A pool of the server's configuration comes back, empty, when the server starts again.
    """
    with connect(address, timeout) as kv:
        kv.delete_pool(name)
        note_change()
    if as_json:
        print_json({})
    else:
        console().print(f"deleted pool {name}", markup=False)


def drain(as_json: Json = False, address: Address = None, timeout: Timeout = 5.0) -> None:
    """Let the server shut down in order, as SIGTERM does.

    It takes no new work, answers what it is doing, and ends.

    This command does not wait for that.
    """
    with connect(address, timeout) as kv:
        kv.drain()
        note_change()
    if as_json:
        print_json({})
    else:
        console().print("the server is draining")
