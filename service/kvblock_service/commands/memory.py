"""`kvblock memory`: the memory files of this machine's servers.

Rules:
- Both commands work beside running servers; a file of a living server is never removed.
- `clean` removes orphans by itself; what is unknown, or belongs to a server that is stopped,
  goes only by its path. It asks first, or demands --yes.
- The directory is the one that `kvblock serve` would have in the same environment.
- The service is loaded when a command runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvblock.extras import install_hint
from kvblock_cli import confirm
from kvblock_cli.confirm import Yes
from kvblock_cli.failures import REFUSED, USAGE, CommandError, not_installed, note_change
from kvblock_cli.options import Json, option
from kvblock_cli.output import console, counted, print_json, say
from kvblock_cli.register import add_command, epilog_of
from kvblock_cli.tables import Column, table_of

if TYPE_CHECKING:
    from kvblock_service.memory.inventory import MemoryFile

Dir = Annotated[
    Path | None,
    option(
        "DIR",
        "Where memory files are. Default: that of `kvblock serve`: what KVBLOCK_MEMORY_DIR or the"
        " file that KVBLOCK_CONFIG names says, or /dev/shm.",
        "--memory-dir",
    ),
]
Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Memory files to remove. Default: all orphans.",
        show_default=False,
    ),
]
_COLUMNS: dict[str, Column] = {
    "FILE": "path",
    "POOL": lambda row: row.pool or "?",
    "STATE": lambda row: row.state.value,
    "WHY": "why",
    "BYTES": "file_bytes",
}


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    add_command(group, list_files, name="list", example="memory list --json")
    add_command(group, clean, example="memory clean --yes")
    about = "List and clean up the memory files of pools."
    app.add_typer(group, name="memory", help=about, epilog=epilog_of("memory list"))


def list_files(memory_dir: Dir = None, as_json: Json = False) -> None:
    """List memory files: in use, stopped (their server will use them again), orphan or unknown."""
    with _readable():
        found = _found(memory_dir)
    if as_json:
        print_json({"files": [one._asdict() for one in found]})
    elif found:
        console().print(table_of(found, _COLUMNS, left=4))
    else:
        say("no memory files")


def clean(
    files: Files = None, memory_dir: Dir = None, yes: Yes = False, as_json: Json = False
) -> None:
    """Remove orphans, or the files that are named.

    An orphan is of a server without a journal that was killed, or of a state directory that has
    begun anew. What a stopped server will use again, and what is unknown, goes only if it is
    named. A file of a running server stays in any case.
    """
    asks = confirm.must_ask("removes the memory of pools", yes=yes)
    with _readable():
        from kvblock_service.memory.inventory import FileState, remove

        paths = [path.absolute() for path in files or ()]
        if not paths:
            found = _found(memory_dir)
            paths = [Path(one.path) for one in found if one.state is FileState.ORPHAN]
        if asks and paths:
            names = ", ".join(map(str, paths))
            confirm.ask(f"what engines have in {names} is lost. Remove {_these(paths)}?")
        for path in paths:
            remove(path)
            note_change()
    if as_json:
        print_json({"removed": [str(path) for path in paths]})
        return
    for path in paths:
        say(f"removed {path}")
    if not paths:
        say("no orphans")


def _these(paths: list[Path]) -> str:
    return "it" if len(paths) == 1 else counted(len(paths), "file")


def _found(directory: Path | None) -> list[MemoryFile]:
    from kvblock_service.config import ConfigError
    from kvblock_service.config.load import load_memory_dir
    from kvblock_service.memory.inventory import memory_files

    try:
        return list(memory_files(directory or Path(load_memory_dir())))
    except ConfigError as error:
        raise CommandError(USAGE, str(error)) from None


@contextmanager
def _readable() -> Iterator[None]:
    """Tell what cannot be used, and which extra to install where the service is missing."""
    try:
        from kvblock_service.memory import MemoryFileError

        yield
    except ModuleNotFoundError as error:
        raise not_installed(error, "this", install_hint("server")) from error
    except MemoryFileError as error:
        raise CommandError(REFUSED, str(error)) from error
