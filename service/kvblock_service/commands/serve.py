"""`kvblock serve`: the flags of the server.

Rules:
- There is a flag for every setting, made of the setting's own description. Values are handed on as
  they were written, so that the settings judge flags, variables and the file alike.
- The service is loaded when the command runs or shows its help; besides here only in `kvblock
  journal`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text
from typer.core import TyperCommand

from kvblock.extras import install_hint
from kvblock_cli.failures import USAGE, CommandError, not_installed
from kvblock_cli.options import option
from kvblock_cli.output import console, print_json
from kvblock_cli.register import add_command
from kvblock_cli.tables import table

if TYPE_CHECKING:
    from kvblock_service.config import LoadedSettings
    from kvblock_service.config.described import Described

_EPILOG = (
    "Every setting is also a variable (KVBLOCK_LISTEN for --listen, KVBLOCK_POOLS for --pool; lists"
    " separated by blanks) and a key of the TOML file (listen, \\[\\[pools]] with name, total,"
    " block_size, device, reserved, block_bytes, regions, layout, memory, quarantine)."
    " Flags win over variables, variables over the file."
    "\n\nExample: [bold]kvblock serve --pool main:total=4096 --listen unix:/tmp/kv.sock[/]"
)

ConfigFile = Annotated[
    Path | None,
    option("FILE", "A TOML file with settings (KVBLOCK_CONFIG names one, too).", "--config"),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check", help="Show every setting, its value and its source, and start nothing."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="With --check: as JSON.")]


class _ServeCommand(TyperCommand):
    """The command as others see it who only list it; it is made whole when it is looked into."""

    @property
    def params(self) -> Any:
        """The options, those of the settings among them."""
        return _complete().params

    @params.setter
    def params(self, _: Any) -> None:
        """Those that are known without the settings are not all."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        return _complete().invoke(ctx)


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    add_command(app, serve, epilog=_EPILOG, kind=_ServeCommand)


@functools.cache
def _complete() -> Any:
    """The command with an option for every setting."""
    with _installed():
        from kvblock_service.config.described import described
    app = typer.Typer(add_completion=False)
    add_command(app, serve, epilog=_EPILOG, more=[_option(one) for one in described()])
    return typer.main.get_command(app)


def _option(setting: Described) -> inspect.Parameter:
    text = escape(setting.meaning) + (" Once for each." if setting.is_list else "")
    if setting.default and not setting.is_switch:
        text += rf" [dim]\[default: {escape(setting.default)}][/]"
    text = text.replace("`", "")
    made = option(setting.metavar or None, text, setting.flag, rich_help_panel=setting.panel)
    kind: Any = list[str] if setting.is_list else bool if setting.is_switch else str
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, made],
    )


def serve(
    config_file: ConfigFile = None, check: Check = False, as_json: AsJson = False, **flags: object
) -> None:
    """Serve block pools until SIGTERM or Ctrl-C.

    Prints "kvblock ready listen=ADDRESS ..." when it is ready; logs to stderr. Exits with 0 when it
    was shut down in order, 1 when it cannot listen or serve its state.
    """
    if as_json and not check:
        raise typer.BadParameter("--json goes with --check")
    loaded = _load(flags, config_file)
    if check:
        _show(loaded, as_json=as_json)
        return
    from kvblock_service.main import run

    raise typer.Exit(run(loaded.settings))


def _load(flags: dict[str, object], config_file: Path | None) -> LoadedSettings:
    with _installed():
        from kvblock_service.config import ConfigError, load_settings

        importlib.import_module("kvblock_service.main")
    try:
        return load_settings(flags, config_file)
    except ConfigError as error:
        raise CommandError(USAGE, _all_problems(error.problems)) from None


@contextmanager
def _installed() -> Iterator[None]:
    """Say which extra to install where the service lacks a library."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise not_installed(error, "the server", install_hint("server")) from error


def _all_problems(problems: tuple[str, ...]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"the configuration has {len(problems)} problems:", *problems])


def _show(loaded: LoadedSettings, *, as_json: bool) -> None:
    """Show the settings, unless the server could not use its certificates and identities."""
    from kvblock_service.access import AccessError
    from kvblock_service.main import build_edge

    try:
        build_edge(loaded.settings)
    except AccessError as error:
        raise CommandError(USAGE, str(error)) from None
    values = loaded.settings.as_toml()
    if as_json:
        print_json({"config": values, "sources": loaded.sources})
        return
    made = table("SETTING", "VALUE", "SOURCE", left=3, wrap=True)
    specs = [pool.spec() for pool in loaded.settings.pools]
    for name, value in (values | {"pools": specs}).items():
        entries = value if isinstance(value, (list, tuple)) else [value]
        for row, entry in enumerate(entries):
            shown = str(entry).lower() if isinstance(entry, bool) else str(entry)
            value = Text("none", "dim") if entry in ("", None) else shown
            made.add_row("" if row else name, value, loaded.sources[name])
    console().print(made)
