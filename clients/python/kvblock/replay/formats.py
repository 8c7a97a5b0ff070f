"""The two trace formats, one line at a time.

Rules:
  - `parse` answers (arrival in nanoseconds, prompt tokens, generated tokens) or raises BadLine with
    the line's number, the field, its value and what is wrong. Arrivals are exact: no floats.
  - Azure: columns are found by the header's names, in any order, beside others. A timestamp is a
    date and a time of day with 0 to 9 fractional digits and maybe a zone (`Z`, `+00:00`); without
    one it is UTC.
  - Mooncake: an object per line. `timestamp` is in milliseconds, a fraction is legal. `hash_ids`
    may be missing and must be an array otherwise; replay has no use for its content.
"""

from __future__ import annotations

import csv
import json
import re
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NoReturn, Protocol

TOKENS_MAX = 10_000_000
"""Longest legal prompt or answer, in tokens; a larger one is a mistake."""
TIMESTAMP_MS_MAX = 9_000_000_000_000
"""Latest legal Mooncake timestamp: the nanoseconds still fit 63 bits."""

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

_SHOWN_MAX = 60
_WHOLE_NUMBER = re.compile(r"-?[0-9]+", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?"
    r"\s?(?:Z|([+-])([01]\d|2[0-3]):?([0-5]\d))?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)


class BadLine(Exception):
    """The text says which line of a trace is broken and how."""


class LineReader(Protocol):
    """One format."""

    name: str
    first_line_is_header: bool

    def parse(self, number: int, line: str) -> tuple[int, int, int]:
        """Read one line that is not blank. Raises BadLine."""


def choose_format(number: int, line: str) -> LineReader:
    """Tell the format from the first line that is not blank. Raises BadLine for neither."""
    if line.startswith("{"):
        return MooncakeReader()
    cells = _split_csv(number, line)
    missing = [name for name in AZURE_COLUMNS if name not in cells]
    if len(missing) == len(AZURE_COLUMNS):
        raise BadLine(
            f"line {number}: {shorten(line)} begins no trace: wanted the header "
            f"{','.join(AZURE_COLUMNS)} or a JSON object with timestamp, input_length and "
            "output_length"
        )
    if missing:
        raise BadLine(f"line {number}: the header has no column {missing[0]}: {shorten(line)}")
    for name in AZURE_COLUMNS:
        if cells.count(name) > 1:
            raise BadLine(f"line {number}: the header names {name} twice: {shorten(line)}")
    return AzureReader(cells)


class AzureReader:
    """Azure's LLM inference trace: `TIMESTAMP,ContextTokens,GeneratedTokens`."""

    name = "azure"
    first_line_is_header = True

    def __init__(self, columns: list[str]) -> None:
        self._columns = len(columns)
        self._time, self._prompt, self._generated = map(columns.index, AZURE_COLUMNS)

    def parse(self, number: int, line: str) -> tuple[int, int, int]:
        """Read one row. Raises BadLine."""
        cells = _split_csv(number, line)
        if len(cells) != self._columns:
            raise BadLine(
                f"line {number}: has {len(cells)} fields, the header {self._columns}: "
                f"{shorten(line)}"
            )
        return (
            _azure_time(number, cells[self._time]),
            _azure_tokens(number, "ContextTokens", cells[self._prompt]),
            _azure_tokens(number, "GeneratedTokens", cells[self._generated]),
        )


class MooncakeReader:
    """Mooncake's trace: a JSON object per line."""

    name = "mooncake"
    first_line_is_header = False

    def parse(self, number: int, line: str) -> tuple[int, int, int]:
        """Read one object. Raises BadLine."""
        try:
            # Numbers stay text until they are checked: int() itself refuses thousands of digits.
            row = json.loads(line, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
        except (ValueError, RecursionError) as error:
            raise BadLine(f"line {number}: is no JSON: {error}: {shorten(line)}") from error
        if not isinstance(row, dict):
            raise BadLine(f"line {number}: is no JSON object: {shorten(line)}")
        if not isinstance(row.get("hash_ids", []), list):
            _bad(number, "hash_ids", row["hash_ids"], "wanted an array")
        return (
            _mooncake_time(number, _field(number, row, "timestamp")),
            _tokens(number, "input_length", _field(number, row, "input_length")),
            _tokens(number, "output_length", _field(number, row, "output_length")),
        )


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def shorten(value: object) -> str:
    """Show a value as it would be written in Python, cut when it is long."""
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def _bad(number: int, field: str, value: object, wanted: str) -> NoReturn:
    shown = value if isinstance(value, _Number) and len(value) <= _SHOWN_MAX else shorten(value)
    raise BadLine(f"line {number}: {field} is {shown}: {wanted}")


def _split_csv(number: int, line: str) -> list[str]:
    try:
        rows = list(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadLine(f"line {number}: is no CSV: {error}: {shorten(line)}") from error
    return [cell.strip() for cell in rows[0]] if rows else []


def _field(number: int, row: dict[str, object], field: str) -> object:
    if field not in row:
        raise BadLine(f"line {number}: has no field {field}")
    return row[field]


def _azure_tokens(number: int, field: str, text: str) -> int:
    return _tokens(number, field, _Number(text) if _WHOLE_NUMBER.fullmatch(text) else text)


def _tokens(number: int, field: str, value: object) -> int:
    wanted = f"wanted a whole number from 0 to {TOKENS_MAX}"
    if not isinstance(value, _Number) or not _WHOLE_NUMBER.fullmatch(value):
        _bad(number, field, value, wanted)
    if value.startswith("-") or len(value.lstrip("0")) > len(str(TOKENS_MAX)):
        _bad(number, field, value, wanted)
    tokens = int(value.lstrip("0") or "0")
    if tokens > TOKENS_MAX:
        _bad(number, field, value, wanted)
    return tokens


def _mooncake_time(number: int, value: object) -> int:
    wanted = f"wanted milliseconds from 0 to {TIMESTAMP_MS_MAX}"
    if not isinstance(value, _Number):
        _bad(number, "timestamp", value, wanted)
    try:
        milliseconds = Decimal(value)
    except InvalidOperation:
        _bad(number, "timestamp", value, wanted)
    if not milliseconds.is_finite() or not 0 <= milliseconds <= TIMESTAMP_MS_MAX:
        _bad(number, "timestamp", value, wanted)
    return int(milliseconds * 1_000_000)


def _azure_time(number: int, text: str) -> int:
    wanted = "wanted a time such as 2023-11-16 18:17:03.9799600"
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        _bad(number, "TIMESTAMP", text, wanted)
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock}")
    except ValueError as error:
        raise BadLine(f"line {number}: TIMESTAMP is {shorten(text)}: {error}") from error
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    utc = (moment - _EPOCH) + (ahead if sign == "-" else -ahead)
    return utc // timedelta(microseconds=1) * 1_000 + int((fraction or "0").ljust(9, "0"))
