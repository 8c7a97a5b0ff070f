"""The options that commands share, and the connection that follows from them.

Rules:
- An option means the same in every command that has it.
- Variables of the client commands are not among the server's settings, so that both can stand in
  one environment.
- A token comes from a file: everybody on a machine can see the arguments of its processes.
- What needs the client library loads it when it is called.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kvblock_cli.failures import USAGE, CommandError

if TYPE_CHECKING:
    from kvblock import Client, Tls

_PANEL = "Server"


def option(metavar: str | None, text: str, *names: str, **more: Any) -> Any:
    """An option, whose text says what follows where it is not given."""
    return typer.Option(*names, metavar=metavar, help=text, **({"show_default": False} | more))


def _credential(text: str, variable: str) -> Any:
    return option("FILE", text, envvar=variable, rich_help_panel=_PANEL)


Address = Annotated[
    str | None,
    option(
        "ADDRESS",
        "The server: unix:PATH or HOST:PORT. Default: where `kvblock serve` listens by itself:"
        " KVBLOCK_LISTEN, else unix:/run/kvblock.sock for root, for others kvblock.sock in"
        " $XDG_RUNTIME_DIR.",
        "--address",
        "-a",
        envvar="KVBLOCK_ADDRESS",
        rich_help_panel=_PANEL,
    ),
]
Timeout = Annotated[
    float,
    option("SECONDS", "How long to wait for an answer.", show_default=True, rich_help_panel=_PANEL),
]
TokenFile = Annotated[
    Path | None,
    _credential("The file with the token that says who is calling.", "KVBLOCK_TOKEN_FILE"),
]
UseTls = Annotated[
    bool,
    typer.Option(
        "--tls",
        envvar="KVBLOCK_TLS",
        help="Use TLS. The server's certificate has to come from a public authority, or from one of"
        " --tls-ca, which implies this.",
        rich_help_panel=_PANEL,
    ),
]
TlsCa = Annotated[
    Path | None, _credential("The authorities that the server may have, PEM.", "KVBLOCK_TLS_CA")
]
TlsCert = Annotated[
    Path | None, _credential("The client's certificate, PEM.", "KVBLOCK_CLIENT_CERT")
]
TlsKey = Annotated[Path | None, _credential("Its key, PEM.", "KVBLOCK_CLIENT_KEY")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Pool = Annotated[str, option("NAME", "The pool. Default: the server's default pool.")]
AnyPool = Annotated[str, option("NAME", "Only this pool. Default: all.")]
Engine = Annotated[str, option("NAME", "The engine whose sequence it is.", show_default=True)]
AnyEngine = Annotated[str, option("NAME", "Only this engine. Default: all.")]
SequenceId = Annotated[int, typer.Argument(help="A number from 0 to 2^64 - 1.", show_default=False)]


def default_address() -> str | None:
    """Where `kvblock serve` listens in this environment; None when it has no such place.

    That is the first address of KVBLOCK_LISTEN whose port is not left to the server.
    """
    for address in os.environ.get("KVBLOCK_LISTEN", "").split():
        if not address.endswith(":0"):
            return address
    directory = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    return f"unix:{directory}/kvblock.sock" if directory else None


@dataclass(frozen=True)
class Credentials:
    """What the options say about who is calling, and about TLS."""

    token_file: TokenFile = None
    tls: UseTls = False
    tls_ca: TlsCa = None
    tls_cert: TlsCert = None
    tls_key: TlsKey = None

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
        """What `connect` gets about TLS."""
        from kvblock import Tls

        named = (self.tls_ca, self.tls_cert, self.tls_key)
        return Tls(*named) if any(named) else self.tls


@dataclass(frozen=True)
class _Reached:
    address: Address = None
    timeout: Timeout = 5.0


@dataclass(frozen=True)
class Server(Credentials, _Reached):
    """The server that a command talks to, and how."""

    def connect(self, pool: str = "", engine: str = "default") -> Client:
        """A client of the server.

        Raises:
            CommandError: no address was given, and this user has no default one; or there is no
                token in the token file.
            InvalidArgumentError: an option can never be right.

        """
        import kvblock

        address = self.address or default_address()
        if address is None:
            raise CommandError(
                USAGE,
                "no server is named, and XDG_RUNTIME_DIR is not set, where one would be looked for",
                "name it with --address or KVBLOCK_ADDRESS",
            )
        # Without a server it fails at once: a person is waiting.
        return kvblock.connect(
            address,
            pool=pool,
            engine=engine,
            timeout=self.timeout,
            token=self.token(),
            tls=self.tls_settings(),
            retries=False,
        )
