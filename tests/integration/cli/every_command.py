"""Every command of the application, with arguments that do something, and a way to run one here.

Rules:
- A command that is added has to be added here: `test_every_command_is_known` says so.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import typer

from kvblock_cli.app import make_app
from kvblock_cli.failures import run

TALKS: dict[str, list[str]] = {
    "stats": [],
    "top": ["--interval", "0.05"],
    "allocate": ["10", "2"],
    "table": ["10"],
    "can-allocate": ["1"],
    "pools": [],
    "sequences": ["--blocks"],
    "blocks": [],
    "holder": ["0"],
    "engines": [],
    "audit": [],
    "free": ["10"],
    "pool create": ["extra", "8"],
    "pool delete": ["extra", "--yes"],
    "doctor": [],
    "replay": ["--pool", "gpu0", "--mode", "shared", "--blocks", "64", "--limit", "1"],
    "reclaim": ["other", "--yes"],
    "drain": ["--yes"],
}
"""Those that talk to a server, in an order in which each can: `reclaim` is refused if nobody is
`other`, and `drain` ends the server."""

LOCAL: dict[str, list[str]] = {
    "serve": ["--check"],
    "journal verify": [],
    "journal dump": [],
    "journal export": [],
    "journal discard": ["--pool", "main", "--yes"],
    "journal set-aside": ["--yes"],
    "memory list": ["--memory-dir", "tests"],
    "memory clean": ["--memory-dir", "tests", "--yes"],
    "trace generate": ["--requests", "1", "-o", "-"],
}
"""Those that talk to none."""


def commands() -> dict[str, Callable[..., None]]:
    """Every command by its words."""
    return dict(_commands(make_app(), ""))


def _commands(app: typer.Typer, before: str) -> Iterator[tuple[str, Callable[..., None]]]:
    for one in app.registered_commands:
        assert one.callback is not None
        name = one.name or one.callback.__name__.replace("_", "-")
        yield f"{before}{name}", one.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, f"{before}{group.name} ")


class Ended(NamedTuple):
    """How a command has ended."""

    code: int
    out: str
    err: str


class Here:
    """Runs commands in this process, as the program does, without a terminal."""

    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._captured = captured

    def run(self, command: str, *arguments: str) -> Ended:
        """Run a command; it has to end without an exception."""
        self._patch.setattr(sys, "argv", ["kvblock", *command.split(), *arguments])
        self._captured.readouterr()
        code: Any = run(make_app(), "kvblock")
        return Ended(int(code), *self._captured.readouterr())
