"""Request traces: what arrives, when, and how long it is.

Rules:
  - The format is told from the first line that is not blank, never from the file's name: a line
    that opens with `{` begins Mooncake's JSONL, a header with Azure's three column names begins
    Azure's CSV, anything else is an error. UTF-8; a byte order mark, CRLF and blank lines are fine.
  - A line that cannot be read stops the reading with its number, the field, the value and the
    limit. Nothing is guessed or left out.
  - Requests are sorted by arrival; those that arrive together keep the file's order. Arrivals are
    counted from the first one. `limit` takes the first lines of the file, before the sorting, so
    that the beginning of a huge file is read in no time.
  - A prompt or an answer of zero tokens is legal: some services log them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kvblock.replay.formats import BadLine, LineReader, choose_format, shorten

LINE_BYTES_MAX = 4 * 1024 * 1024


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
    """`azure` or `mooncake`."""
    requests: tuple[Request, ...]
    """At least one request, sorted by arrival; the first arrives at 0."""


def read_trace(path: Path, limit: int | None = None) -> Trace:
    """Read the requests of a file, at most the first `limit` of them.

    Raises TraceError when the file cannot be opened or read, or holds no requests.
    """
    try:
        with path.open("rb") as file:
            return _read(file, limit)
    except BadLine as error:
        raise TraceError(f"{path}: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from error


def _read(file: BinaryIO, limit: int | None) -> Trace:
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        raise BadLine("the file is empty: it holds no requests")
    reader = choose_format(*first)
    found = list(islice(_requests(reader, first, lines), limit))
    if not found:
        raise BadLine("the file holds a header but no requests")
    found.sort(key=lambda request: request.arrival_ns)
    start = found[0].arrival_ns
    return Trace(
        reader.name,
        tuple(request._replace(arrival_ns=request.arrival_ns - start) for request in found),
    )


def _requests(
    reader: LineReader, first: tuple[int, str], lines: Iterator[tuple[int, str]]
) -> Iterator[Request]:
    if not reader.first_line_is_header:
        yield Request(*reader.parse(*first))
    for number, line in lines:
        yield Request(*reader.parse(number, line))


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, counted from 1."""
    number = 0
    while raw := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(raw) > LINE_BYTES_MAX:
            raise BadLine(f"line {number}: is longer than {LINE_BYTES_MAX} bytes")
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            shown = shorten(raw[error.start : error.start + 8])
            raise BadLine(f"line {number}: is not UTF-8 from {shown} on") from error
        if line:
            yield number, line
