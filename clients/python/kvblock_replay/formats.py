"""Which format a trace has, told from its first line that is not blank.

Rules:
  - A line that opens with `{` begins JSON lines, a header with the columns of a known CSV that one.
    Anything else is refused, in words of its own where people are known to have it.
  - `parse` answers a Row or raises BadLine. Arrivals are exact: no floats.
"""

from __future__ import annotations

from typing import Protocol

from kvblock_replay.csv_lines import CSV_FORMATS, choose_csv
from kvblock_replay.fields import BadLine, Row, shorten
from kvblock_replay.json_lines import choose_json
from kvblock_replay.units import TimeUnit


class LineReader(Protocol):
    """One format. `dated`: its arrivals are dates, so nobody has to be asked for their unit."""

    name: str
    first_line_is_header: bool
    dated: bool

    def parse(self, number: int, line: str) -> Row:
        """Read one line that is not blank. Raises BadLine."""

    def unit(self) -> TimeUnit | None:
        """The unit of the arrivals that were read, as far as the fields tell it."""


def choose_format(number: int, line: str) -> LineReader:
    """Tell the format from the first line that is not blank. Raises BadLine for none."""
    if line.startswith("{"):
        return choose_json(number, line)
    if line.startswith("["):
        raise BadLine(
            f"line {number}: begins a JSON array; wanted one object in each line, as"
            " `jq -c '.[]'` writes them"
        )
    reader = choose_csv(number, line)
    if reader is None:
        headers = " or ".join(",".join(kind.columns) for kind in CSV_FORMATS)
        raise BadLine(
            f"line {number}: {shorten(line)} begins no trace: wanted the header {headers}, or a"
            " JSON object with timestamp, input_length and output_length (or isl and osl)"
        )
    return reader
