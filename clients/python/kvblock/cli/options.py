"""The options that commands share, and the connection that follows from them.

Rules:
- An option means the same in every command that has it.
- Variables of the client commands are not among the server's settings, so that both can stand in
  one environment: KVBLOCK_ADDRESS is the only one.
- What needs the client library loads it when it is called.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock.cli.failures import USAGE, CommandError

if TYPE_CHECKING:
    from kvblock import Client

SERVER_PANEL = "Server"

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        "-a",
        envvar="KVBLOCK_ADDRESS",
        metavar="ADDRESS",
        help="The server: unix:PATH or HOST:PORT. Default: where `kvblock serve` listens by"
        " itself, unix:/run/kvblock.sock for root, for others kvblock.sock in $XDG_RUNTIME_DIR.",
        show_default=False,
        rich_help_panel=SERVER_PANEL,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="How long to wait for an answer.", rich_help_panel=SERVER_PANEL
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Pool = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The pool. Default: the server's default pool.", show_default=False
    ),
]
AnyPool = Annotated[
    str,
    typer.Option(metavar="NAME", help="Only this pool. Default: all.", show_default=False),
]
Engine = Annotated[str, typer.Option(metavar="NAME", help="The engine whose sequence it is.")]
AnyEngine = Annotated[
    str,
    typer.Option(metavar="NAME", help="Only this engine. Default: all.", show_default=False),
]
SequenceId = Annotated[
    int,
    typer.Argument(help="A number from 0 to 2^64 - 1.", show_default=False),
]


def default_address() -> str | None:
    """Where a server listens that was told nothing; None when this user has no such place."""
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    return f"unix:{directory}/kvblock.sock" if directory else None


def connect(address: str | None, timeout: float, pool: str = "", engine: str = "default") -> Client:
    """A client of the server that the options name.

    Raises:
        CommandError: no address was given, and this user has no default one.
        InvalidArgumentError: an option can never be right.

    """
    import kvblock

    address = address or default_address()
    if address is None:
        raise CommandError(
            USAGE,
            "no server is named, and XDG_RUNTIME_DIR is not set, where one would be looked for",
            "name it with --address or KVBLOCK_ADDRESS",
        )
    # A person is told at once that no server is there.
    return kvblock.connect(address, pool=pool, engine=engine, timeout=timeout, retries=False)
