"""The formats of traces, known from the first line that is not blank.

Rules:
  - A line that opens with `{` begins JSON lines, a header with the columns of a known CSV that one.
    Anything else is refused, in words of its own where people are known to have it.
  - Arrivals are exact: no floats.
  - A BadLine that is raised here says what is wrong; whoever read the line adds its number.
  - CSV: columns are found by the header's names, in any order, beside others. Azure's timestamp is
    a date and a time of day with 0 to 9 fractional digits and maybe a zone (`Z`, `+00:00`);
    without one it is UTC. BurstGPT's and Vidur's are seconds.
  - JSON: `timestamp` is a number; `input_length` and `output_length`, or `isl` and `osl`, are
    tokens. Fields beside these are passed over. What the first line is, all are. `chat_id` or
    `parent_chat_id`: qwen-bailian, whose timestamps are seconds. `hash_ids` may be missing and must
    be an array otherwise; one for every 512 tokens of the prompt in every line, as Mooncake has
    them, and tools that write its format: milliseconds. Otherwise the fields do not tell the unit.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from kvblock_replay.fields import BadLine, Number, Row, bad, moment, number_in, shorten, tokens
from kvblock_replay.units import TimeUnit

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE_TOKENS_PER_HASH = 512

_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?"
    r"\s?(?:Z|([+-])([01]\d|2[0-3]):?([0-5]\d))?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
_LENGTHS = (("input_length", "output_length"), ("isl", "osl"))
_OF_BAILIAN = ("chat_id", "parent_chat_id")


def choose_format(line: str) -> CsvReader | JsonReader:
    """Tell the format from the first line that is not blank. Raises BadLine for none."""
    if line.startswith("{"):
        return _choose_json(line)
    if line.startswith("["):
        raise BadLine(
            "begins a JSON array; wanted one object in each line, as `jq -c '.[]'` writes them"
        )
    reader = _choose_csv(line)
    if reader is None:
        headers = " or ".join(",".join(kind.columns) for kind in _CSV_FORMATS)
        raise BadLine(
            f"{shorten(line)} begins no trace: wanted the header {headers}, or a"
            " JSON object with timestamp, input_length and output_length (or isl and osl)"
        )
    return reader


class _CsvFormat(NamedTuple):
    """A CSV: the columns of arrival, prompt and answer, and how an arrival is read."""

    name: str
    columns: tuple[str, str, str]
    arrival: Callable[[str, str], int]
    dated: bool = False


class CsvReader:
    """Reads rows under one header.

    `dated`: its arrivals are dates, so nobody has to be asked for their unit.
    """

    first_line_is_header = True

    def __init__(self, kind: _CsvFormat, header: list[str]) -> None:
        self.name = kind.name
        self.dated = kind.dated
        self._kind = kind
        self._count = len(header)
        self._places = [header.index(name) for name in kind.columns]

    def parse(self, line: str) -> Row:
        """Read one row. Raises BadLine."""
        cells = _split_csv(line)
        if len(cells) != self._count:
            raise BadLine(f"has {len(cells)} fields, the header {self._count}: {shorten(line)}")
        arrival, prompt, generated = (cells[place] for place in self._places)
        names = self._kind.columns
        return Row(
            self._kind.arrival(names[0], arrival),
            tokens(names[1], number_in(prompt)),
            tokens(names[2], number_in(generated)),
        )

    def unit(self) -> TimeUnit:
        """What the format's arrivals count; a date has become seconds."""
        return TimeUnit.SECONDS


def _choose_csv(line: str) -> CsvReader | None:
    """Tell the format from a header; None: the line has none of the columns. Raises BadLine."""
    cells = _split_csv(line)
    kind = max(_CSV_FORMATS, key=lambda one: sum(name in cells for name in one.columns))
    missing = [name for name in kind.columns if name not in cells]
    if len(missing) == len(kind.columns):
        return None
    if missing:
        raise BadLine(f"the header has no column {missing[0]}: {shorten(line)}")
    for name in kind.columns:
        if cells.count(name) > 1:
            raise BadLine(f"the header names {name} twice: {shorten(line)}")
    return CsvReader(kind, cells)


def _split_csv(line: str) -> list[str]:
    """The cells of a line. Raises BadLine."""
    try:
        rows = list(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadLine(f"is no CSV: {error}: {shorten(line)}") from error
    return [cell.strip() for cell in rows[0]] if rows else []


def _date(field: str, text: str) -> int:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        bad(field, text, "wanted a time such as 2023-11-16 18:17:03.9799600")
    day, clock, fraction, sign, hours, minutes = match.groups()
    try:
        found = datetime.fromisoformat(f"{day} {clock}")
    except ValueError as error:
        raise BadLine(f"{field} is {shorten(text)}: {error}") from error
    ahead = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    utc = (found - _EPOCH) + (ahead if sign == "-" else -ahead)
    return utc // timedelta(microseconds=1) * 1_000 + int((fraction or "0").ljust(9, "0"))


def _seconds(field: str, text: str) -> int:
    return moment(field, number_in(text))


_CSV_FORMATS = (
    _CsvFormat("azure", AZURE_COLUMNS, _date, dated=True),
    _CsvFormat("burstgpt", ("Timestamp", "Request tokens", "Response tokens"), _seconds),
    _CsvFormat("vidur", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"), _seconds),
)


class JsonReader:
    """Reads objects like a first one."""

    first_line_is_header = False
    dated = False

    def __init__(self, first: dict[str, object]) -> None:
        self._lengths = next((names for names in _LENGTHS if names[0] in first), _LENGTHS[0])
        self._hashes_fit = "hash_ids" in first
        self._longest = 0
        if any(field in first for field in _OF_BAILIAN):
            self.name = "bailian"
        else:
            self.name = "mooncake" if "hash_ids" in first else "lengths"

    def parse(self, line: str) -> Row:
        """Read one object. Raises BadLine."""
        row = _row(line)
        hashes = row.get("hash_ids", [])
        if not isinstance(hashes, list):
            bad("hash_ids", hashes, "wanted an array")
        prompt, generated = self._lengths
        found = Row(
            moment("timestamp", _field(row, "timestamp")),
            tokens(prompt, _field(row, prompt)),
            tokens(generated, _field(row, generated)),
        )
        wanted = -(-found.prompt_tokens // MOONCAKE_TOKENS_PER_HASH)
        self._hashes_fit &= len(hashes) == wanted
        self._longest = max(self._longest, wanted)
        return found

    def unit(self) -> TimeUnit | None:
        """What the fields of the lines so far say."""
        if self.name == "bailian":
            return TimeUnit.SECONDS
        # A single hash fits every short prompt, whatever it means.
        return TimeUnit.MILLISECONDS if self._hashes_fit and self._longest > 1 else None


def _choose_json(line: str) -> JsonReader:
    """Tell the format from the first object. Raises BadLine."""
    try:
        return JsonReader(_row(line))
    except BadLine:
        if _goes_on(line):
            raise BadLine(
                "begins a JSON object that goes on in the next line; wanted one"
                " object in each line, as `jq -c .` writes them"
            ) from None
        raise


def _goes_on(line: str) -> bool:
    """Whether a line is the beginning of JSON and nothing is wrong with it but its end."""
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return not line[error.pos :].strip()
    except RecursionError:
        return False
    return False


def _row(line: str) -> dict[str, object]:
    try:
        row = json.loads(line, parse_float=Number, parse_int=Number, parse_constant=Number)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"is no JSON: {error}: {shorten(line)}") from error
    if not isinstance(row, dict):
        raise BadLine(f"is no JSON object: {shorten(line)}")
    return row


def _field(row: dict[str, object], field: str) -> object:
    if field not in row:
        raise BadLine(f"has no field {field}")
    return row[field]


LineReader = CsvReader | JsonReader
"""One format."""
