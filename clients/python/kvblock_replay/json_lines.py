"""Traces as JSON lines: an object for each request.

Rules:
  - `timestamp` is a number; `input_length` and `output_length`, or `isl` and `osl`, are tokens.
    Fields beside these are passed over.
  - `chat_id` or `parent_chat_id` beside them: qwen-bailian, whose timestamps are seconds.
  - `hash_ids` may be missing and must be an array otherwise. One for every 512 tokens of the prompt
    in every line, as Mooncake has them, and tools that write its format: milliseconds.
  - Otherwise the fields do not tell the unit. What the first line is, all are.
"""

from __future__ import annotations

import json

from kvblock_replay.fields import BadLine, Number, Row, bad, moment, shorten, tokens
from kvblock_replay.units import TimeUnit

MOONCAKE_TOKENS_PER_HASH = 512

_LENGTHS = (("input_length", "output_length"), ("isl", "osl"))
_OF_BAILIAN = ("chat_id", "parent_chat_id")


class JsonReader:
    """Reads objects like a first one; see `LineReader`."""

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

    def parse(self, number: int, line: str) -> Row:
        """Read one object. Raises BadLine."""
        row = _row(number, line)
        hashes = row.get("hash_ids", [])
        if not isinstance(hashes, list):
            bad(number, "hash_ids", hashes, "wanted an array")
        prompt, generated = self._lengths
        found = Row(
            moment(number, "timestamp", _field(number, row, "timestamp")),
            tokens(number, prompt, _field(number, row, prompt)),
            tokens(number, generated, _field(number, row, generated)),
        )
        wanted = -(-found.prompt_tokens // MOONCAKE_TOKENS_PER_HASH)
        self._hashes_fit &= len(hashes) == wanted
        self._longest = max(self._longest, wanted)
        return found

    def unit(self) -> TimeUnit | None:
        """What the fields of the lines so far say."""
        if self.name == "bailian":
            return TimeUnit.SECONDS
        # A single hash fits every short prompt, whatever it stands for.
        return TimeUnit.MILLISECONDS if self._hashes_fit and self._longest > 1 else None


def choose_json(number: int, line: str) -> JsonReader:
    """Tell the format from the first object. Raises BadLine."""
    try:
        return JsonReader(_row(number, line))
    except BadLine:
        if _goes_on(line):
            raise BadLine(
                f"line {number}: begins a JSON object that goes on in the next line; wanted one"
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


def _row(number: int, line: str) -> dict[str, object]:
    try:
        row = json.loads(line, parse_float=Number, parse_int=Number, parse_constant=Number)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"line {number}: is no JSON: {error}: {shorten(line)}") from error
    if not isinstance(row, dict):
        raise BadLine(f"line {number}: is no JSON object: {shorten(line)}")
    return row


def _field(number: int, row: dict[str, object], field: str) -> object:
    if field not in row:
        raise BadLine(f"line {number}: has no field {field}")
    return row[field]
