"""`kvblock journal`: what a server has kept, read without it.

Rules:
- verify, dump and export change nothing, and work beside a running server: they read what was there
  when they came by. discard and set-aside change something, and only of a server that is not
  running.
- A journal that cannot be read exits with 1, and the text says where the damage is.
- The service is loaded when a command runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvblock.cli.failures import REFUSED, CommandError, not_installed
from kvblock.cli.output import console, number, print_json, table

if TYPE_CHECKING:
    from kvblock_service.journal.inspect import Contents

Dir = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]",
        help="The state directory. Default: where `kvblock serve` keeps its state by itself.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    group.command(epilog="Example: [bold]kvblock journal verify && echo sound[/]")(verify)
    group.command(epilog="Example: [bold]kvblock journal dump --from 100 --limit 5[/]")(dump)
    group.command(epilog="Example: [bold]kvblock journal export | jq '.pools'[/]")(export)
    group.command(epilog="Example: [bold]kvblock journal discard --pool main[/]")(discard)
    group.command(
        "set-aside", epilog="Example: [bold]kvblock journal set-aside /var/lib/kvblock[/]"
    )(set_aside)
    app.add_typer(
        group,
        name="journal",
        help="Read, check and mend what a server has kept.",
        epilog="Example: [bold]kvblock journal verify[/]",
    )


def verify(directory: Dir = None, as_json: AsJson = False) -> None:
    """Read everything, check all checksums, replay it and audit the pools."""
    with _readable():
        from kvblock_service.journal.inspect import read_contents

        contents = read_contents(_state_dir(directory))
    found = contents.summary()
    if as_json:
        print_json(found)
    else:
        _show(contents, found)
    if contents.problems:
        raise typer.Exit(REFUSED)


def dump(
    directory: Dir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    first: Annotated[
        int, typer.Option("--from", metavar="POSITION", help="Begin at this position.", min=0)
    ] = 0,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Print at most N records.", min=0)
    ] = None,
) -> None:
    """Print the records behind the newest snapshot, one a line."""
    with _readable():
        from kvblock_service.journal.inspect import described

        for count, record in enumerate(described(_state_dir(directory), first)):
            if count == limit:
                break
            sys.stdout.write((json.dumps(record) if as_json else _line(record)) + "\n")


def export(directory: Dir = None) -> None:
    """Print every block table as JSON: pools, their engines, and these engines' sequences."""
    with _readable():
        from kvblock_service.journal.inspect import exported

        for piece in exported(_state_dir(directory)):
            sys.stdout.write(piece)
    sys.stdout.write("\n")


def discard(
    pool: Annotated[str, typer.Option("--pool", metavar="NAME", help="The pool to drop.")],
    directory: Dir = None,
) -> None:
    """Drop a pool, and all that its engines hold in it, from the journal of a stopped server."""
    with _readable():
        from kvblock_service.journal.mend import discard_pool

        discard_pool(_state_dir(directory), pool)
    console().print(f"pool {pool} is dropped", markup=False)


def set_aside(directory: Dir = None) -> None:
    """Rename what a stopped server has kept, so that the next start begins with empty pools.

    For a journal that is damaged. Nothing is removed before former_state_seconds are over: rename
    it back, with no server running, to have it again.
    """
    with _readable():
        from kvblock_service.journal.mend import set_aside as set_state_aside

        moved = set_state_aside(_state_dir(directory))
    for path in moved:
        console().print(f"set aside as {path}", markup=False, soft_wrap=True)


def _state_dir(directory: Path | None) -> Path:
    if directory is not None:
        return directory
    from kvblock_service.config.values import default_state_dir

    return Path(default_state_dir())


@contextmanager
def _readable() -> Iterator[None]:
    """Tell what the journal raises, and which extra to install where the service is missing."""
    try:
        from kvblock_service.journal.interface import JournalDamaged, JournalError
        from kvblock_service.journal.state_dir import StateDirTaken

        yield
    except ModuleNotFoundError as error:
        hint = "name the state directory, or pip install 'kvblock[server]'"
        raise not_installed(error, "this", hint) from error
    except (JournalDamaged, JournalError, StateDirTaken) as error:
        raise CommandError(REFUSED, str(error)) from error


def _show(contents: Contents, found: dict[str, Any]) -> None:
    made = table("POOL", "HELD", "QUARANTINED", "FREE", "ENGINES", "SEQUENCES")
    for pool in found["pools"]:
        made.add_row(
            pool["pool"],
            *(number(pool[key]) for key in ("held", "quarantined", "free", "engines", "sequences")),
        )
    console().print(made)
    words = (
        f"server epoch {found['server_epoch']}, snapshot at {found['snapshot_position']},"
        f" {number(found['records'])} records behind it, the last at {found['position']}"
    )
    console().print(words, markup=False)
    for remark in contents.remarks:
        console().print(f"note: {remark}", markup=False)
    for problem in contents.problems:
        console().print(f"problem: {problem}", markup=False)


def _line(record: dict[str, Any]) -> str:
    fields = " ".join(
        f"{key}={json.dumps(value) if isinstance(value, (str, list)) else value}"
        for key, value in record.items()
        if key not in ("position", "kind")
    )
    return f"{record['position']} {record['kind']} {fields}"
