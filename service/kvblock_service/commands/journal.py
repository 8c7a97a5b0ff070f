"""`kvblock journal`: the state that a server has written, read without it.

Rules:
- verify, dump and export change nothing, and work beside a running server: they read what was there
  when they began. discard and set-aside change something, and only of a server that is not
  running; they ask first, or demand --yes.
- The state directory is the one that `kvblock serve` would have in the same environment.
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

from kvblock.extras import install_hint
from kvblock_cli import confirm
from kvblock_cli.confirm import Yes
from kvblock_cli.failures import REFUSED, USAGE, CommandError, not_installed, note_change
from kvblock_cli.options import Json, option
from kvblock_cli.output import console, json_text, number, print_answer, print_json, say
from kvblock_cli.register import add_command, epilog_of
from kvblock_cli.tables import table_of

if TYPE_CHECKING:
    from kvblock_service.journal.inspect import Contents

Dir = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR]",
        help="The state directory. Default: that of `kvblock serve`: what KVBLOCK_STATE_DIR or the"
        " file that KVBLOCK_CONFIG names says, or where it is by itself.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    for command, example in (
        (verify, "verify && echo sound"),
        (dump, "dump --from 100 --limit 5"),
        (export, "export | jq '.pools'"),
        (discard, "discard --pool main --yes"),
        (set_aside, "set-aside /var/lib/kvblock --yes"),
    ):
        add_command(group, command, example=f"journal {example}")
    about = "Read, check and repair the journal of a server."
    app.add_typer(group, name="journal", help=about, epilog=epilog_of("journal verify"))


def verify(directory: Dir = None, as_json: Json = False) -> None:
    """Read everything, check all checksums, replay it and audit the pools."""
    with _readable():
        from kvblock_service.journal.inspect import read_contents

        contents = read_contents(_state_dir(directory))
    if as_json:
        print_json(contents.summary())
    else:
        _show(contents)
    if contents.problems:
        raise typer.Exit(REFUSED)


def dump(
    directory: Dir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    first: Annotated[
        int, option("POSITION", "Begin at this position. Default: 0.", "--from", min=0)
    ] = 0,
    limit: Annotated[int | None, option("N", "Print at most N records.", min=0)] = None,
) -> None:
    """Print the records behind the newest snapshot, one a line."""
    with _readable():
        from kvblock_service.journal.inspect import described

        for count, record in enumerate(described(_state_dir(directory), first)):
            if count == limit:
                break
            sys.stdout.write((json_text(record) if as_json else _line(record)) + "\n")


def export(directory: Dir = None, as_json: Json = False) -> None:
    """Print every block table as JSON: pools, their engines, and these engines' sequences."""
    del as_json  # It is JSON in any case.
    with _readable():
        from kvblock_service.journal.inspect import exported

        for piece in exported(_state_dir(directory)):
            sys.stdout.write(piece)
    sys.stdout.write("\n")


def discard(
    pool: Annotated[str, option("NAME", "The pool to drop.", "--pool")],
    directory: Dir = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Drop a pool, and all that its engines hold in it, from the journal of a stopped server."""
    asks = confirm.must_ask("drops all that engines hold in a pool", yes=yes)
    with _readable():
        from kvblock_service.journal.open import discard_pool

        state_dir = _state_dir(directory)
        if asks:
            confirm.ask(f"all that engines hold in pool {pool} of {state_dir} is lost. Drop it?")
        discard_pool(state_dir, pool)
        note_change()
    print_answer({}, f"pool {pool} is dropped", as_json=as_json)


def set_aside(directory: Dir = None, yes: Yes = False, as_json: Json = False) -> None:
    """Rename the state of a stopped server, so that the next start begins with empty pools.

    For a journal that is damaged. Nothing is removed before former_state_seconds have passed:
    rename it back, with no server running, to have it again.
    """
    asks = confirm.must_ask("lets the next start begin with empty pools", yes=yes)
    with _readable():
        from kvblock_service.journal.open import set_aside as set_state_aside

        state_dir = _state_dir(directory)
        if asks:
            confirm.ask(f"the next start on {state_dir} begins with empty pools. Set it aside?")
        moved = [str(path) for path in set_state_aside(state_dir)]
        note_change()
    if as_json:
        print_json({"set_aside": moved})
    else:
        for path in moved:
            say(f"set aside as {path}")


def _state_dir(directory: Path | None) -> Path:
    if directory is not None:
        return directory
    from kvblock_service.config import ConfigError
    from kvblock_service.config.load import load_state_dir

    try:
        return Path(load_state_dir())
    except ConfigError as error:
        raise CommandError(USAGE, str(error)) from None


@contextmanager
def _readable() -> Iterator[None]:
    """Tell what the journal raises, and which extra to install where the service is missing."""
    try:
        from kvblock_service.journal.interface import JournalDamaged, JournalError
        from kvblock_service.journal.state_dir import StateDirInUse

        yield
    except ModuleNotFoundError as error:
        raise not_installed(error, "this", install_hint("server")) from error
    except (JournalDamaged, JournalError, StateDirInUse) as error:
        raise CommandError(REFUSED, str(error)) from error


def _show(contents: Contents) -> None:
    found = contents.summary()
    fields = ("pool", "held", "quarantined", "free", "engines", "sequences")
    console().print(table_of(found["pools"], {field.upper(): field for field in fields}))
    say(
        f"server epoch {found['server_epoch']}, snapshot at {found['snapshot_position']},"
        f" {number(found['records'])} records behind it, the last at {found['position']}"
    )
    for remark in contents.remarks:
        say(f"note: {remark}")
    for problem in contents.problems:
        say(f"problem: {problem}")


def _line(record: dict[str, Any]) -> str:
    fields = " ".join(
        f"{key}={json.dumps(value) if isinstance(value, (str, list)) else value}"
        for key, value in record.items()
        if key not in ("position", "kind")
    )
    return f"{record['position']} {record['kind']} {fields}"
