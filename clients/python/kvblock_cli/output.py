"""What commands print: text for people, JSON for machines.

Rules:
- Colours only on a terminal, and not when NO_COLOR is set.
- What comes from elsewhere, a name or a message of a server for instance, is shown as it is but for
  characters that would do something to a terminal: those are escaped, in tables, text and JSON.
- Where stdout is no terminal nothing is wrapped or cut.
- JSON is on one line where stdout is no terminal. Fields that have 64 bits in the protos are
  strings there, as in proto3's JSON mapping: JSON's readers round numbers beyond 2^53.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from itertools import chain
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.text import Text

_Row = TypeVar("_Row")

UNBOUNDED = 10_000
"""Characters in a line where stdout is no terminal."""
_WIDE_IN_FILES = frozenset(
    {
        *("position", "snapshot_position", "records", "epoch_floor", "batch", "free_ids"),
        *("allocate_ids", "file_bytes"),
    }
)
"""Fields of 64 bits that only journals and memory files have."""


def console() -> Console:
    """Where answers go."""
    if sys.stdout.isatty():
        return Console(highlight=False, emoji=False)
    return Console(highlight=False, emoji=False, soft_wrap=True, width=UNBOUNDED)


def error_console() -> Console:
    """Where errors go."""
    return Console(stderr=True, highlight=False, emoji=False)


def printable(text: str, keep: str = "") -> str:
    """A text whose characters are all visible: others, but for those to keep, as Python escapes."""
    if text.isprintable():
        return text
    return "".join(
        one
        if one.isprintable() or one in keep
        else one.encode("unicode_escape", "backslashreplace").decode("ascii")
        for one in text
    )


def say(text: str, style: str = "") -> None:
    """Print one line of text."""
    console().print(Text(printable(text), style), soft_wrap=True)


def plain(value: object, *, wide: bool = False) -> object:
    """A client's answer as JSON has it: fields and enums by their names.

    `wide`: numbers become strings, as those of a field that has 64 bits do.
    """
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int) and not isinstance(value, bool) and wide:
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        fields = wide_fields()
        return {str(key): plain(entry, wide=key in fields) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, wide=wide) for entry in value]
    return value


@functools.cache
def wide_fields() -> frozenset[str]:
    """The names of all fields that have 64 bits."""
    from kvblock.v1 import admin_pb2, kvblock_pb2

    return _WIDE_IN_FILES | {
        field.name
        for file in (admin_pb2.DESCRIPTOR, kvblock_pb2.DESCRIPTOR)
        for message in file.message_types_by_name.values()
        for field in message.fields
        if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    }


def json_wanted() -> bool:
    """Whether the command line has --json, also if nobody could make sense of the rest of it."""
    options = sys.argv[1:]
    if "--" in options:
        options = options[: options.index("--")]
    return "--json" in options


def json_text(value: object, *, spread: bool = False) -> str:
    """A value as JSON, as `plain` has it."""
    text = json.dumps(plain(value), indent=2 if spread else None, ensure_ascii=False)
    if text.isprintable():
        return text
    # What is left now is in strings, but for the line ends of the indentation.
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )


def print_json(value: object, *, one_line: bool = False) -> None:
    """Print one JSON value."""
    spread = sys.stdout.isatty() and not one_line
    sys.stdout.write(json_text(value, spread=spread) + "\n")
    sys.stdout.flush()


def print_answer(value: object, shown: RenderableType, *, as_json: bool) -> None:
    """Print an answer: the value as JSON, or what people are shown of it."""
    if as_json:
        print_json(value)
    elif isinstance(shown, str):
        say(shown)
    else:
        console().print(shown)


class _Unfinished:
    """Whether an object with a list in it has been begun on stdout, and is not closed."""

    begun = False


def print_json_rows(name: str, rows: Iterator[object]) -> None:
    """Print one JSON object that has a list, row by row as they come.

    When they break off, `print_json_error` ends it.
    """
    first = next(rows, None)
    sys.stdout.write(f'{{"{name}": [')
    _Unfinished.begun = True
    if first is not None:
        sys.stdout.write(json_text(first))
    for row in rows:
        sys.stdout.write(f",\n{json_text(row)}")
    sys.stdout.write("]}\n")
    _Unfinished.begun = False


def print_rows(
    name: str, rows: Iterator[_Row], head: str, line: Callable[[_Row], str], *, as_json: bool
) -> None:
    """Print the rows of a listing as they come: as JSON, or one a line under a head."""
    if as_json:
        print_json_rows(name, rows)
        return
    first = next(rows, None)
    if first is None:
        say(f"no {name}")
        return
    say(head, "bold")
    for row in chain((first,), rows):
        sys.stdout.write(f"{line(row)}\n")


def print_json_error(error: Mapping[str, object]) -> None:
    """Print the object that tells an error, or its fields behind the list that was begun."""
    text = json_text(error)
    sys.stdout.write(f"], {text[1:]}\n" if _Unfinished.begun else f"{text}\n")
    _Unfinished.begun = False


def cut(text: str, width: int | None) -> str:
    """A text in a column of so many characters; None: the column is as wide as the text."""
    shown = Text(printable(text))
    if width is not None:
        shown.truncate(max(width, 1), overflow="ellipsis")
    return shown.plain


def terminal_width() -> int | None:
    """The characters in a line of the terminal that answers go to; None: they go to none."""
    return console().width if sys.stdout.isatty() else None


def number(value: int) -> str:
    """A number for people."""
    return f"{value:,}"


def counted(count: int, what: str = "block") -> str:
    """A number of things in words."""
    return f"{number(count)} {what if count == 1 else what + 's'}"


def seconds_left(seconds: float | None) -> str:
    """How long something lasts, for people; empty: it does not end."""
    return "" if seconds is None else f"{seconds:.1f} s"
