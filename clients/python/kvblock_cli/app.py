"""The application: every command by its name.

Rules:
- The order is that of the help. A module whose commands take more than an example adds itself.
- Start-up loads neither gRPC nor the service: commands load what they need when they run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kvblock.version import VERSION
from kvblock_cli import engines, pools, sequences, stats
from kvblock_cli.doctor import command as doctor
from kvblock_cli.register import add_command
from kvblock_cli.top import command as top
from kvblock_replay import command as replay
from kvblock_service.commands import journal, memory, serve

_EXIT_CODES = (
    "[bold]Exit codes:[/] 0 done; 1 refused, or unhealthy (an allocation that does not fit, an"
    " unknown sequence, an audit that finds anything); 2 wrong usage or configuration; 3 server"
    " unreachable; 4 output that cannot be written."
)
_OVERVIEWS_AND_SEQUENCES = {
    stats.stats: "stats --watch 0.5",
    top.top: "top --interval 0.5",
    sequences.allocate: "allocate 10 2 --max-wait 1.5",
    sequences.free: "free 10",
    sequences.table: "table 10 --json",
    sequences.can_allocate: "can-allocate 64 && echo enough",
    sequences.sequences: "sequences --engine engine-0 | head",
}
_ENGINES_AND_DOCTOR = {
    engines.engines: "engines --pool main",
    engines.reclaim: "reclaim engine-0 --yes",
    engines.blocks: "blocks --engine engine-0 | head",
    engines.holder: "holder 17",
    doctor.doctor: "doctor || kvblock doctor --json",
}
"""Commands that take no more to be added than an example."""


def make_app() -> typer.Typer:
    """The application with all commands."""
    app = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EXIT_CODES)(kvblock)
    serve.register(app)
    _add(app, _OVERVIEWS_AND_SEQUENCES)
    pools.register(app)
    _add(app, _ENGINES_AND_DOCTOR)
    for module in (journal, memory, replay):
        module.register(app)
    return app


def _add(app: typer.Typer, commands: Mapping[Any, str]) -> None:
    for command, example in commands.items():
        add_command(app, command, example=example)


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
