"""How a command ends when it cannot do what it was asked.

Rules:
- A command that cannot go on raises CommandError, or lets the errors of the client pass: `run`
  shows what is to be shown and gives the code that follows.
- Output that cannot be written ends a command with a code of its own, and the text says whether the
  command had changed something before.
- Only errors that a user can meet are caught; a fault of this program keeps its traceback.
- With --json an error is an object on stdout, and nothing goes to stderr.
- An error names what the user typed: not the field of a request that it went into, by its index.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kvblock_cli.output import error_console, json_wanted, print_json_error, printable
from kvblock_cli.standard_streams import OutputError, discard_output

if TYPE_CHECKING:
    from kvblock.errors import KVBlockError

DONE, REFUSED, USAGE, UNREACHABLE, UNWRITABLE = 0, 1, 2, 3, 4
INTERRUPTED, PIPE_CLOSED = 130, 141

_INDEX = re.compile(r"\[\d+\]$")
_TYPED = {
    "block_numbers": "block",
    "tls": "--tls",
    "tls.ca": "--tls-ca",
    "tls.cert": "--tls-cert",
    "tls.key": "--tls-key",
    "token": "the token",
}
"""What users call a field that is not named like its option."""

# The base of typer's own errors, which has had more than one name.
_TyperError: type[Exception] = typer.BadParameter.__mro__[2]


_changed = ContextVar("_changed", default=False)
"""Of the command that runs: whether it has changed something."""


class CommandError(Exception):
    """Ends a command with an exit code; each further line of the text is a detail.

    `reason` is the name of an ErrorReason, where one says it.
    """

    def __init__(
        self, exit_code: int, text: str, hint: str = "", *, reason: str | None = None
    ) -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.hint = hint
        self.reason = reason


def note_change() -> None:
    """Remember that the command has done what it was asked; what is left is to tell its answer."""
    _changed.set(True)


def cannot_write(path: Path, error: OSError) -> CommandError:
    """How a command ends that cannot write a file that it was asked for."""
    return CommandError(UNWRITABLE, f"{path}: {error.strerror or error}")


def write_file(path: Path, text: str) -> None:
    """Write a file that the command was asked for.

    Raises:
        CommandError: it cannot be written.

    """
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def not_installed(error: ModuleNotFoundError, who: str, hint: str) -> CommandError:
    """How a command ends that lacks a library: `who` needs it, `hint` says what to do.

    Raises:
        ModuleNotFoundError: the module is kvblock's own, which is a fault of this program.

    """
    if (error.name or "").startswith("kvblock"):
        raise error
    return CommandError(USAGE, f"{who} needs {error.name}, which is not installed", hint)


def run(application: typer.Typer, program: str) -> int:
    """Run what the program's arguments name; show what went wrong, and give the exit code."""
    command = typer.main.get_command(application)
    try:
        code = _exit_code_of(lambda: command.main(prog_name=program, standalone_mode=False))
        sys.stdout.flush()
    except typer.Abort:
        return INTERRUPTED
    except OutputError as error:
        discard_output()
        if error.reader_is_gone:
            return PIPE_CLOSED
        fate = "; the call was carried out" if _changed.get() else ""
        # Nobody would see an object on stdout.
        _report_on_stderr(f"the output cannot be written to stdout: {error}{fate}")
        return UNWRITABLE
    return code


def _exit_code_of(command: Callable[[], object]) -> int:
    try:
        code = command()
    except CommandError as error:
        return _report(error.exit_code, str(error), error.hint, error.reason, keep="\n")
    except _TyperError as error:
        return _report_usage(error)
    except _client_error() as error:
        return _report_failed_call(error)
    return code if isinstance(code, int) else DONE


def _client_error() -> type[KVBlockError]:
    # Python asks only when something was raised: a command that ends well does not load this.
    from kvblock.errors import KVBlockError

    return KVBlockError


def _report_failed_call(error: KVBlockError) -> int:
    from kvblock.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError

    code, hint = REFUSED, ""
    if isinstance(error, InvalidArgumentError):
        code = USAGE
    elif isinstance(error, UnavailableError):
        code = UNREACHABLE
        if not error.reason:
            hint = "is `kvblock serve` running? --address or KVBLOCK_ADDRESS name the server"
    elif isinstance(error, DeadlineExceededError):
        code, hint = UNREACHABLE, "--timeout sets how long to wait for an answer"
    text = _as_typed(error)
    reason = error.reason or error.code
    return _report(code, text, hint, reason.name if reason else None)


def _as_typed(error: KVBlockError) -> str:
    """An error's text, about what the user typed."""
    field = error.violations[0].field if error.violations else ""
    begin = f"{field}: {error.metadata.get('value', '')} "
    typed = _TYPED.get(_INDEX.sub("", field))
    if typed is None or not str(error).startswith(begin):
        return str(error)
    # Of TLS as a whole, of a token and of what is missing there is no value to show.
    shown = "" if field in ("tls", "token") else error.metadata["value"]
    told = f"{'' if shown in ('', 'None') else f'{shown} '}{str(error)[len(begin) :]}"
    return f"{typed} {told}".replace("(tls=...)", "(--tls)")


def _report_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        return USAGE
    context = getattr(error, "ctx", None)
    text = " ".join(error.format_message().split()).replace("Input should be", "must be")
    return _report(USAGE, text, f"see `{context.command_path} --help`" if context else "")


def _report(
    code: int, text: str, hint: str = "", reason: str | None = None, *, keep: str = ""
) -> int:
    """Report an error; `keep`: what is not escaped in it, as it is no text of a server's."""
    if json_wanted():
        print_json_error(
            {"reason": reason, "message": text, "hint": hint or None, "exit_code": code}
        )
    else:
        _report_on_stderr(text, hint, keep=keep)
    return code


def _report_on_stderr(text: str, hint: str = "", *, keep: str = "") -> None:
    console = error_console()
    console.print("[bold red]error:[/] ", end="")
    console.print(printable(text, keep), markup=False, soft_wrap=True)
    if hint:
        console.print("[bold]hint:[/] ", end="")
        console.print(printable(hint), markup=False, soft_wrap=True)
