"""The options that commands share, and the connection that follows from them.

Rules:
- An option means the same in every command that has it.
- Variables of the client commands are not among the server's settings, so that both can stand in
  one environment.
- A token comes from a file: everybody on a machine can see the arguments of its processes.
- What needs the client library loads it when it is called.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from kvblock.cli.failures import USAGE, CommandError

if TYPE_CHECKING:
    from kvblock import Client, Tls

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


def _credential(metavar: str, help_text: str, variable: str, *names: str) -> Any:
    return typer.Option(
        *names,
        envvar=variable,
        metavar=metavar,
        help=help_text,
        show_default=False,
        rich_help_panel=SERVER_PANEL,
    )


TokenFile = Annotated[
    Path | None,
    _credential("FILE", "The file with the token that says who is calling.", "KVBLOCK_TOKEN_FILE"),
]
UseTls = Annotated[
    bool,
    typer.Option(
        "--tls",
        envvar="KVBLOCK_TLS",
        help="Use TLS. The server's certificate has to come from a public authority, or from one of"
        " --tls-ca, which implies this.",
        rich_help_panel=SERVER_PANEL,
    ),
]
TlsCa = Annotated[
    Path | None,
    _credential("FILE", "The authorities that the server may have, PEM.", "KVBLOCK_TLS_CA"),
]
TlsCert = Annotated[
    Path | None,
    _credential("FILE", "The client's certificate, PEM.", "KVBLOCK_CLIENT_CERT"),
]
TlsKey = Annotated[Path | None, _credential("FILE", "Its key, PEM.", "KVBLOCK_CLIENT_KEY")]
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


class Credentials(NamedTuple):
    """What the options say about who is calling, and about TLS."""

    token_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def token(self) -> str | None:
        """The token.

        Raises:
            CommandError: its file cannot be read, or must not be, or is empty.

        """
        if self.token_file is None:
            return None
        from kvblock.trusted_file import UnusableFileError, read_file

        try:
            token = read_file(self.token_file).content.decode("ascii").strip()
        except UnusableFileError as error:
            raise CommandError(USAGE, f"--token-file {self.token_file}: {error}") from None
        except UnicodeDecodeError:
            token = ""
        if not token:
            raise CommandError(USAGE, f"--token-file {self.token_file}: has no token in it")
        return token

    def tls_settings(self) -> Tls | bool:
        """What `connect` has to be told about TLS."""
        from kvblock import Tls

        named = (self.tls_ca, self.tls_cert, self.tls_key)
        return Tls(*named) if any(named) else self.tls


_NONE = Credentials()
_shown = ContextVar("_shown", default=_NONE)
"""Of the command that runs."""


def _options(
    token_file: TokenFile = None,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> Credentials:
    return Credentials(token_file, tls, tls_ca, tls_cert, tls_key)


def with_credentials(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `Credentials` behind its own; `connect` follows them."""
    added = list(inspect.signature(_options, eval_str=True).parameters.values())
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def extended(**values: Any) -> None:
        _shown.set(_options(**{one.name: values.pop(one.name) for one in added}))
        command(**values)

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in added]
    parameters = [*own.parameters.values(), *keyword]
    extended.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    extended.__annotations__ = {one.name: one.annotation for one in parameters}
    return extended


def connect(address: str | None, timeout: float, pool: str = "", engine: str = "default") -> Client:
    """A client of the server that the options name.

    Raises:
        CommandError: no address was given, and this user has no default one; or there is no token
            in the token file.
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
    shown = _shown.get()
    # A person is told at once that no server is there.
    return kvblock.connect(
        address,
        pool=pool,
        engine=engine,
        timeout=timeout,
        token=shown.token(),
        tls=shown.tls_settings(),
        retries=False,
    )
