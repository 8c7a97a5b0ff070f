"""Request traces: what arrives, when, and how long it is.

Rules:
  - The format follows from the first line that is not blank, never the file's name: see
    `formats`; the unit of its timestamps as `units` says. UTF-8, plain or packed (see `packed`); a
    byte order mark, CRLF and blank lines are fine.
  - A line that cannot be read stops the reading with its number, the field, the value and the
    limit. Nothing is guessed or left out.
  - Requests are sorted by arrival; those that arrive together keep the file's order. Arrivals are
    counted from the first one. `limit` takes the first lines of the file, before the sorting, so
    that the beginning of a huge file is read in no time. Some lines more may be looked at for the
    unit: one that cannot be read ends that look and nothing else.
  - A prompt or an answer of zero tokens is legal: some services log them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kvblock_replay.fields import BadLine, Row, shorten
from kvblock_replay.formats import LineReader, choose_format
from kvblock_replay.packed import Unpacked, unpacked
from kvblock_replay.units import TimeUnit, choose_unit, nanoseconds

LINE_BYTES_MAX = 4 * 1024 * 1024
EVIDENCE_LINES = 1000
"""So many lines at least are looked at for the unit of the timestamps."""
_MARK = b"\xef\xbb\xbf"


class TraceError(Exception):
    """A trace cannot be read; the text says which file, which line and why."""


class Request(NamedTuple):
    """One request of a trace."""

    arrival_ns: int
    """When it arrives, in nanoseconds after the trace's first request."""
    prompt_tokens: int
    """Tokens of its prompt."""
    generated_tokens: int
    """Tokens that are generated for it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace, in order of arrival."""

    format: str
    """`azure`, `burstgpt`, `vidur`, `mooncake`, `bailian`, or `lengths` for JSON lines that tell
    no more than arrivals and lengths."""
    requests: tuple[Request, ...]
    """At least one request, sorted by arrival; the first arrives at 0."""
    time_unit: TimeUnit | None = None
    """What its timestamps count; None: they are dates."""


def read_trace(path: Path, limit: int | None = None, time_unit: TimeUnit | None = None) -> Trace:
    """Read the requests of a file, at most the first `limit` of them.

    `time_unit` is what the timestamps count; None: what is certain.

    Raises TraceError when the file cannot be opened or read, holds no requests, or when it is not
    certain what its timestamps count.
    """
    try:
        with path.open("rb") as file:
            return _read(file, limit, time_unit)
    except BadLine as error:
        raise TraceError(f"{path}: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from error


def _read(file: BinaryIO, limit: int | None, time_unit: TimeUnit | None) -> Trace:
    lines = _lines(unpacked(file))
    first = next(lines, None)
    if first is None:
        raise BadLine("the file is empty: it holds no requests")
    try:
        reader = choose_format(first[1])
    except BadLine as error:
        raise _at(first[0], error) from error
    if reader.dated and time_unit is not None:
        raise BadLine("its timestamps are dates: --time-unit is for numbers")
    rows = _rows(reader, first, lines)
    found = list(islice(rows, limit))
    if not found:
        raise BadLine("the file holds a header but no requests")
    unit = time_unit or _unit(reader, found, rows)
    requests = [Request(nanoseconds(row.arrival, unit), *row[1:]) for row in found]
    requests.sort(key=lambda request: request.arrival_ns)
    start = requests[0].arrival_ns
    return Trace(
        reader.name,
        tuple(request._replace(arrival_ns=request.arrival_ns - start) for request in requests),
        None if reader.dated else unit,
    )


def _unit(reader: LineReader, found: list[Row], more: Iterator[Row]) -> TimeUnit:
    """What the arrivals count, by those that were found and, if these are few, some more."""
    if reader.dated:
        return TimeUnit.SECONDS
    arrivals = [row.arrival for row in found]
    with suppress(BadLine):
        arrivals += [row.arrival for row in islice(more, max(0, EVIDENCE_LINES - len(arrivals)))]
    return choose_unit(arrivals, reader.unit())


def _rows(
    reader: LineReader, first: tuple[int, str], lines: Iterator[tuple[int, str]]
) -> Iterator[Row]:
    for number, line in lines if reader.first_line_is_header else chain((first,), lines):
        try:
            row = reader.parse(line)
        except BadLine as error:
            raise _at(number, error) from error
        yield row


def _lines(source: Unpacked) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, counted from 1."""
    for number in count(1):
        try:
            raw = _line(source)
            line = raw.removeprefix(_MARK if number == 1 else b"").decode("utf-8").strip()
        except BadLine as error:
            raise _at(number, error) from error
        except UnicodeDecodeError as error:
            shown = shorten(error.object[error.start : error.start + 8])
            raise BadLine(f"line {number}: is not UTF-8 from {shown} on") from error
        if not raw:
            return
        if line:
            yield number, line


def _at(number: int, error: BadLine) -> BadLine:
    return BadLine(f"line {number}: {error}")


def _line(source: Unpacked) -> bytes:
    try:
        raw = source.file.readline(LINE_BYTES_MAX + 1)
    except source.damage as error:
        raise BadLine(f"the packed file is damaged here: {error}") from error
    if b"\r" in raw.rstrip(b"\r\n"):
        raise BadLine(
            "has a carriage return in it; lines end with LF or CRLF, and"
            " `tr '\\r' '\\n'` makes such of lines that end with CR alone"
        )
    if len(raw) > LINE_BYTES_MAX:
        raise BadLine(f"is longer than {LINE_BYTES_MAX} bytes")
    return raw
