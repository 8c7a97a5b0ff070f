"""The application: every command by its name.

Rules:
- A command's module adds itself; only what all commands share is here.
- Start-up loads neither gRPC nor the service: commands load what they need when they run.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kvblock.version import VERSION
from kvblock_cli import engines, pools, sequences, stats
from kvblock_cli.doctor import command as doctor
from kvblock_cli.top import command as top
from kvblock_replay import command as replay
from kvblock_service.commands import journal, serve

_EXIT_CODES = (
    "[bold]Exit codes:[/] 0 done; 1 refused, or unhealthy (an allocation that does not fit, an"
    " unknown sequence, an audit that finds anything); 2 wrong usage or configuration; 3 server"
    " unreachable; 4 output that cannot be written."
)


def make_app() -> typer.Typer:
    """The application with all commands."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EXIT_CODES)(kvblock)
    modules = (serve, stats, top, sequences, pools, engines, doctor, journal, replay)
    for module in modules:
        module.register(app)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"kvblock {VERSION}")
        raise typer.Exit


def kvblock(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Share the paged-KV-cache blocks of a host among LLM engines."""
