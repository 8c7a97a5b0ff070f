"""What commands print: tables and text for people, JSON for machines.

Rules:
- Colours only on a terminal, and not when NO_COLOR is set.
- Where stdout is no terminal nothing is wrapped or cut.
- JSON is on one line where stdout is no terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from enum import Enum

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000


def console() -> Console:
    """Where answers go."""
    if sys.stdout.isatty():
        return Console(highlight=False, emoji=False)
    return Console(highlight=False, emoji=False, soft_wrap=True, width=_UNBOUNDED)


def error_console() -> Console:
    """Where errors go."""
    return Console(stderr=True, highlight=False, emoji=False)


def plain(value: object) -> object:
    """A client's answer as JSON has it: fields by their names, enums by their names."""
    if isinstance(value, Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print one JSON value."""
    spread = sys.stdout.isatty() and not one_line
    sys.stdout.write(json.dumps(value, indent=2 if spread else None, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_json_rows(name: str, rows: Iterator[object]) -> None:
    """Print one JSON object that has a list, row by row as they come."""
    first = next(rows, None)
    sys.stdout.write(f'{{"{name}": [')
    if first is not None:
        sys.stdout.write(json.dumps(plain(first), ensure_ascii=False))
    for row in rows:
        sys.stdout.write(f",\n{json.dumps(plain(row), ensure_ascii=False)}")
    sys.stdout.write("]}\n")


def table(*columns: str, left: int = 1) -> Table:
    """A table; its first `left` columns hold words, which may wrap, the others numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        words = index < left
        made.add_column(
            column, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    return made


def number(value: int) -> str:
    """A number for people."""
    return f"{value:,}"


def share(part: int, whole: int) -> Text:
    """A part of a whole in percent; what is nearly used up stands out."""
    percent = 100 * part / whole
    style = "red" if percent > 95 else "yellow" if percent > 80 else "green"
    return Text(f"{percent:.1f} %", style=style)
