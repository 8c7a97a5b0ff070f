"""Traces as CSV: a header, then a row for each request.

Rules:
  - Columns are found by the header's names, in any order, beside others.
  - Azure's timestamp is a date and a time of day with 0 to 9 fractional digits and maybe a zone
    (`Z`, `+00:00`); without one it is UTC. BurstGPT's and Vidur's are seconds.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from kvblock_replay.fields import BadLine, Row, bad, moment, number_in, shorten, tokens
from kvblock_replay.units import TimeUnit

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?"
    r"\s?(?:Z|([+-])([01]\d|2[0-3]):?([0-5]\d))?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)


class CsvFormat(NamedTuple):
    """A CSV: the columns of arrival, prompt and answer, and how an arrival is read."""

    name: str
    columns: tuple[str, str, str]
    arrival: Callable[[int, str, str], int]
    dated: bool


class CsvReader:
    """Reads rows under one header; see `LineReader`."""

    first_line_is_header = True

    def __init__(self, kind: CsvFormat, header: list[str]) -> None:
        self.name = kind.name
        self.dated = kind.dated
        self._kind = kind
        self._count = len(header)
        self._places = [header.index(name) for name in kind.columns]

    def parse(self, number: int, line: str) -> Row:
        """Read one row. Raises BadLine."""
        cells = split_csv(number, line)
        if len(cells) != self._count:
            raise BadLine(
                f"line {number}: has {len(cells)} fields, the header {self._count}: {shorten(line)}"
            )
        arrival, prompt, generated = (cells[place] for place in self._places)
        names = self._kind.columns
        return Row(
            self._kind.arrival(number, names[0], arrival),
            tokens(number, names[1], number_in(prompt)),
            tokens(number, names[2], number_in(generated)),
        )

    def unit(self) -> TimeUnit:
        """What the format's arrivals count; a date has become seconds."""
        return TimeUnit.SECONDS


def choose_csv(number: int, line: str) -> CsvReader | None:
    """Tell the format from a header; None: the line has none of the columns. Raises BadLine."""
    cells = split_csv(number, line)
    kind = max(CSV_FORMATS, key=lambda one: sum(name in cells for name in one.columns))
    missing = [name for name in kind.columns if name not in cells]
    if len(missing) == len(kind.columns):
        return None
    if missing:
        raise BadLine(f"line {number}: the header has no column {missing[0]}: {shorten(line)}")
    for name in kind.columns:
        if cells.count(name) > 1:
            raise BadLine(f"line {number}: the header names {name} twice: {shorten(line)}")
    return CsvReader(kind, cells)


def split_csv(number: int, line: str) -> list[str]:
    """The cells of a line. Raises BadLine."""
    try:
        rows = list(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadLine(f"line {number}: is no CSV: {error}: {shorten(line)}") from error
    return [cell.strip() for cell in rows[0]] if rows else []


def _date(number: int, field: str, text: str) -> int:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        bad(number, field, text, "wanted a time such as 2023-11-16 18:17:03.9799600")
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        found = datetime.fromisoformat(f"{day} {clock}")
    except ValueError as error:
        raise BadLine(f"line {number}: {field} is {shorten(text)}: {error}") from error
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    utc = (found - _EPOCH) + (ahead if sign == "-" else -ahead)
    return utc // timedelta(microseconds=1) * 1_000 + int((fraction or "0").ljust(9, "0"))


def _seconds(number: int, field: str, text: str) -> int:
    return moment(number, field, number_in(text))


CSV_FORMATS = (
    CsvFormat("azure", AZURE_COLUMNS, _date, dated=True),
    CsvFormat(
        "burstgpt", ("Timestamp", "Request tokens", "Response tokens"), _seconds, dated=False
    ),
    CsvFormat(
        "vidur", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"), _seconds, dated=False
    ),
)
