"""What is in one field of a trace, and what is wrong with it.

Rules:
  - Numbers stay text until they are checked: int() itself refuses thousands of digits, and floats
    round.
  - An error names the field, its value and what was wanted.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import NamedTuple, NoReturn

TOKENS_MAX = 10_000_000
"""Longest legal prompt or answer, in tokens; a larger one is a mistake."""
TIMESTAMP_MAX = 9_000_000_000_000
"""Largest legal number of seconds or milliseconds; as milliseconds it is in the year 2255."""
BILLION = 1_000_000_000

_SHOWN_MAX = 60
_DIGITS = re.compile(r"[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)


class BadLine(Exception):
    """The text says how a line of a trace is broken."""


class Row(NamedTuple):
    """What a line says of one request.

    `arrival` is in billionths of the trace's unit of time.
    """

    arrival: int
    prompt_tokens: int
    generated_tokens: int


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def shorten(value: object) -> str:
    """Show a value as it would be written in Python, cut when it is long."""
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def bad(field: str, value: object, wanted: str) -> NoReturn:
    """Refuse the value of a field. Raises BadLine."""
    shown = value if isinstance(value, Number) and len(value) <= _SHOWN_MAX else shorten(value)
    raise BadLine(f"{field} is {shown}: {wanted}")


def number_in(text: str) -> str:
    """The text of a CSV cell, as a number if it is one."""
    return Number(text) if _NUMBER.fullmatch(text) else text


def tokens(field: str, value: object) -> int:
    """How many tokens a field says. Raises BadLine."""
    digits = (value.lstrip("0") or "0") if isinstance(value, Number) else ""
    if not _DIGITS.fullmatch(digits) or int(digits) > TOKENS_MAX:
        bad(field, value, f"wanted a whole number from 0 to {TOKENS_MAX}")
    return int(digits)


def moment(field: str, value: object) -> int:
    """The billionths of a second, or of a millisecond, that a field says. Raises BadLine."""
    wanted = f"wanted seconds or milliseconds from 0 to {TIMESTAMP_MAX}"
    try:
        found = Decimal(value if isinstance(value, Number) else "NaN")
    except InvalidOperation:
        bad(field, value, wanted)
    if not found.is_finite() or not 0 <= found <= TIMESTAMP_MAX:
        bad(field, value, wanted)
    return int(found * BILLION)
