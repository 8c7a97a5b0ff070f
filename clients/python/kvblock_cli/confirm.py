"""What is asked before a command takes something away.

Rules:
- On a terminal a person is asked, unless --yes was given. Where nobody can be asked --yes is
  demanded: what a script takes away, its author has said so.
- The question goes to stderr: stdout is for the answer.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvblock_cli.failures import REFUSED, USAGE, CommandError
from kvblock_cli.output import json_wanted, printable, say

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def must_ask(what: str, *, yes: bool) -> bool:
    """Whether somebody has to be asked, and can be.

    Raises:
        CommandError: somebody has to be asked, and there is no terminal; `what` is what the command
            does.

    """
    if yes:
        return False
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(
            USAGE, f"this {what}, and there is no terminal to ask on", "--yes says that it is meant"
        )
    return True


def ask(question: str) -> None:
    """Ask, and go on only after a yes.

    Raises:
        CommandError: the answer was another one.
        typer.Exit: the same, where it was printed.

    """
    # Not typer's own: that writes a blank to stdout, where the answer goes.
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return
    if json_wanted():
        raise CommandError(REFUSED, "nothing was changed")
    say("nothing was changed")
    raise typer.Exit(REFUSED)
