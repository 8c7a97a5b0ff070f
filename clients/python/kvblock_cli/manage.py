"""`kvblock pool create`, `pool delete` and `drain`: what operators change about a server.

Rules:
- What takes something away asks first, or demands --yes.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kvblock_cli import confirm
from kvblock_cli.blocks import counted
from kvblock_cli.confirm import Yes
from kvblock_cli.failures import note_change
from kvblock_cli.options import Json, Server, option
from kvblock_cli.output import number, print_answer
from kvblock_cli.register import add_command

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


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True)
    example = "Example: [bold]kvblock pool create gpu1 8192 --device 1[/]"
    about = "Create and delete pools while the server runs."
    app.add_typer(group, name="pool", help=about, epilog=example)
    add_command(group, create, epilog=example)
    add_command(group, delete, epilog="Example: [bold]kvblock pool delete gpu1 --yes[/]")
    add_command(app, drain, epilog="Example: [bold]kvblock drain --yes[/]")


def create(
    server: Server,
    name: Name,
    total_blocks: Total,
    block_size: BlockSize = 16,
    device: Device = 0,
    quarantine: Quarantine = None,
    as_json: Json = False,
) -> None:
    """Create a pool.

    Exits with 1 when the name is taken, or the server has as many pools as it may.
    """
    with server.connect() as kv:
        made = kv.create_pool(
            name, total_blocks, block_size=block_size, device_id=device, quarantine=quarantine
        )
        note_change()
    size = f"{counted(made.total_blocks)} of {number(made.block_size)} tokens"
    shown = f"created pool {made.pool}: {size} on device {made.device_id}"
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
