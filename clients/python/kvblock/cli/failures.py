"""How a command ends when it cannot do what it was asked.

Rules:
- A command that cannot go on raises CommandError, or lets the client's errors pass: `exit_code_of`
  tells what is shown and which code follows.
- Only errors that a user can meet are caught; a fault of this program keeps its traceback.
- With --json an error is an object on stdout, and nothing goes to stderr.
- An error names what the user typed: not the field of a request that it went into, by its index.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from kvblock.cli.output import error_console, json_wanted, print_json_error, printable

if TYPE_CHECKING:
    from kvblock.errors import KVBlockError

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
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


def not_installed(error: ModuleNotFoundError, who: str, hint: str) -> CommandError:
    """How a command ends that lacks a library: `who` needs it, `hint` says what to do.

    Raises:
        ModuleNotFoundError: the module is kvblock's own, which is a fault of this program.

    """
    if (error.name or "").startswith("kvblock"):
        raise error
    return CommandError(USAGE, f"{who} needs {error.name}, which is not installed", hint)


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command; show what went wrong, if anything did, and give the exit code."""
    try:
        code = _exit_code_of(command)
        sys.stdout.flush()
    except typer.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer would be tried again, and complained about, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _exit_code_of(command: Callable[[], object]) -> int:
    try:
        code = command()
    except CommandError as error:
        return _tell(error.exit_code, str(error), error.hint, error.reason, keep="\n")
    except _TyperError as error:
        return _tell_usage(error)
    except _client_error() as error:
        return _tell_failed_call(error)
    return code if isinstance(code, int) else DONE


def _client_error() -> type[KVBlockError]:
    # Python asks only when something was raised: a command that ends well does not load this.
    from kvblock.errors import KVBlockError

    return KVBlockError


def _tell_failed_call(error: KVBlockError) -> int:
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
    return _tell(code, text, hint, reason.name if reason else None)


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


def _tell_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        return USAGE
    context = getattr(error, "ctx", None)
    text = " ".join(error.format_message().split()).replace("Input should be", "must be")
    return _tell(USAGE, text, f"see `{context.command_path} --help`" if context else "")


def _tell(
    code: int, text: str, hint: str = "", reason: str | None = None, *, keep: str = ""
) -> int:
    """Tell an error; `keep`: what is not escaped in it, as it is no text of a server's."""
    if json_wanted():
        print_json_error(
            {"reason": reason, "message": text, "hint": hint or None, "exit_code": code}
        )
        return code
    console = error_console()
    console.print("[bold red]error:[/] ", end="")
    console.print(printable(text, keep), markup=False, soft_wrap=True)
    if hint:
        console.print("[bold]hint:[/] ", end="")
        console.print(printable(hint), markup=False, soft_wrap=True)
    return code
