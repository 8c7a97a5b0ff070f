"""Checks of arguments that need no server.

Rules:
- A check returns the value to use, or raises InvalidArgumentError with the same reason, metadata
  and violation that the server gives for a field that is never legal.
- Only what cannot be written into a request is refused here; limits are the server's.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
import re
from collections.abc import Callable
from typing import SupportsIndex, TypeVar

from kvblock.errors import ErrorReason, FieldViolation, InvalidArgumentError

UINT32_MAX = (1 << 32) - 1
UINT64_MAX = (1 << 64) - 1
SECONDS_MAX = 315_576_000_000
"""The longest time that a protobuf Duration holds."""
TIMEOUT_MAX = 31_536_000
"""The longest finite timeout: a year."""

_SHOWN_MAX = 80
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")
"""Where an object is in memory, in the repr of one that has no better."""

CallbackT = TypeVar("CallbackT", bound=Callable[..., object])


def invalid(field: str, value: object, problem: str) -> InvalidArgumentError:
    """The error that names the field, the value and what would be right."""
    shown = as_written(value)
    if len(shown) > _SHOWN_MAX:
        shown = f"{shown[: _SHOWN_MAX - 3]}..."
    text = f"{field}: {shown} {problem}"
    return InvalidArgumentError(
        text,
        reason=ErrorReason.INVALID_FIELD,
        metadata={"field": field, "value": shown},
        violations=(FieldViolation(field, text),),
    )


def as_written(value: object) -> str:
    """A value as its author would write it; of one that cannot be written, its type."""
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields = value._asdict().items()
        given = ", ".join(f"{key}={as_written(one)}" for key, one in fields if one is not None)
        return f"{type(value).__name__}({given})"
    text = repr(value)
    return f"(a value of type {type(value).__name__})" if _ADDRESS.search(text) else text


def whole_number(field: str, value: SupportsIndex, maximum: int) -> int:
    """A whole number from 0 to `maximum`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= maximum:
        raise invalid(field, value, f"must be a whole number from 0 to {maximum}")
    return number


def name(field: str, value: str) -> str:
    """Text that can be written into a request; which names are legal is the server's to say."""
    if not isinstance(value, str):
        raise invalid(field, value, "must be a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(field, value, "must be valid Unicode") from None
    return value


def seconds(field: str, value: float) -> float:
    """A time span in seconds, from 0 on."""
    if not (_is_number(value) and 0 <= value <= SECONDS_MAX):
        raise invalid(field, value, f"must be seconds from 0 to {SECONDS_MAX}")
    return float(value)


def timeout(value: float | None) -> float | None:
    """A timeout in seconds above 0; None and infinity both become None: no timeout."""
    if value is None or value == math.inf:
        return None
    if not (_is_number(value) and 0 < value <= TIMEOUT_MAX):
        raise invalid(
            "timeout", value, f"must be seconds above 0, at most {TIMEOUT_MAX}, or math.inf"
        )
    return float(value)


def callback(field: str, value: CallbackT | None) -> CallbackT | None:
    """A function that is called and not awaited, or none."""
    if value is not None and not callable(value):
        raise invalid(field, value, "must be a function")
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise invalid(field, value, "must not be a coroutine function: it is called, not awaited")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
