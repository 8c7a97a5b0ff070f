"""Checks of single configuration values, wherever they were written.

Rules:
- A check takes a value as a flag, a variable (text) or a TOML file (typed) gives it, and returns
  it in its own type or raises ValueError. The text completes a sentence that begins with the
  value: "must be a whole number from 1 to 8".
- A check that returned a value returns the same when it is given that value.
"""

import grp
import math
import os
import pwd
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_SPEC = "NAME:total=BLOCKS[,block_size=TOKENS][,device=ID][,quarantine=SECONDS]"
_MODE = re.compile(r"0?[0-7]{3}")
_USER_MAX = 2**32 - 2
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

POOL_KEYS = {
    "name": "name",
    "total": "total_blocks",
    "block_size": "block_size",
    "device": "device_id",
    "quarantine": "quarantine",
}
"""The keys of a pool as users write them, and the fields they set."""


class Whole(NamedTuple):
    """Whole numbers from `low` to `high`."""

    low: int
    high: int

    def __call__(self, value: object) -> int:
        """The number."""
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if type(value) is int and self.low <= value <= self.high:
            return value
        raise ValueError(f"must be a whole number from {self.low} to {self.high}")


class Seconds(NamedTuple):
    """Seconds from `low` to `high`, with fractions."""

    low: float
    high: float

    def __call__(self, value: object) -> float:
        """The seconds."""
        number = math.nan
        # Of what Python takes besides, blanks, `1_0` and digits of other scripts, nothing is meant.
        written = not isinstance(value, str) or _DECIMAL.fullmatch(value)
        if written and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
        if self.low <= number <= self.high:
            return number
        raise ValueError(f"must be a number of seconds from {self.low:g} to {self.high:g}")


class OneOf(NamedTuple):
    """One of a few words, in any case."""

    words: tuple[str, ...]

    def __call__(self, value: object) -> str:
        """The word in lower case."""
        if isinstance(value, str) and value.lower() in self.words:
            return value.lower()
        raise ValueError(f"must be one of: {', '.join(self.words)}")


def path(value: object) -> str:
    """The path of a file, made absolute."""
    if isinstance(value, str) and value and "\0" not in value:
        return str(Path(value).absolute())
    raise ValueError("must be the path of a file")


def mode(value: object) -> str:
    """The mode of a file, as four octal digits."""
    # No number: 660 in a TOML file would be another mode than 0660.
    if isinstance(value, str) and _MODE.fullmatch(value):
        return f"{int(value, 8):04o}"
    raise ValueError("must be a text of three octal digits, such as 0660")


def user(value: object) -> str:
    """A user of this machine, by name or number."""
    _number_of(value, lambda known: pwd.getpwnam(known).pw_uid, "user")
    return str(value)


def group(value: object) -> str:
    """A group of this machine, by name or number."""
    _number_of(value, lambda known: grp.getgrnam(known).gr_gid, "group")
    return str(value)


def user_number(name_or_number: str) -> int:
    """The number of a user that was found legal."""
    return _number_of(name_or_number, lambda known: pwd.getpwnam(known).pw_uid, "user")


def group_number(name_or_number: str) -> int:
    """The number of a group that was found legal."""
    return _number_of(name_or_number, lambda known: grp.getgrnam(known).gr_gid, "group")


def _number_of(value: object, look_up: Callable[[str], int], kind: str) -> int:
    if type(value) is int and 0 <= value <= _USER_MAX:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return _number_of(int(value[:20]), look_up, kind)
    if isinstance(value, str) and value and "\0" not in value:
        try:
            return look_up(value)
        except (KeyError, UnicodeEncodeError):
            pass
    raise ValueError(f"must be the name or the number of a {kind} of this machine")


def truth(value: object) -> bool:
    """True or false."""
    known = _TRUTH.get(str(value).lower()) if isinstance(value, (str, bool)) else None
    if known is None:
        raise ValueError("must be true or false")
    return known


def text(value: object) -> str:
    """A text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise ValueError("must be a text that is not empty")


def directory(value: object) -> str:
    """A directory's path, made absolute; `~` is the user's home."""
    return str(Path(text(value)).expanduser().absolute())


def default_state_dir() -> str:
    """Where a server keeps its state that was told nothing.

    `/var/lib/kvblock` for root, for others `kvblock` in $XDG_STATE_HOME or `~/.local/state`.
    Root's does not follow the variable, which a login shell may have and a system service has not.
    """
    if os.geteuid() == 0:
        return "/var/lib/kvblock"
    home = os.environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    state = Path(home) if Path(home).is_absolute() else Path("~/.local/state")
    return directory(str(state / "kvblock"))


def name(value: object) -> str:
    """The name of a pool."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError("must be 1 to 128 characters from A-Z a-z 0-9 . _ -")


def items(value: object) -> list[object]:
    """The entries of a list; a text is a list whose entries are separated by white space."""
    if isinstance(value, str):
        return list(value.split())
    if isinstance(value, (list, tuple)):
        return list(value)
    raise ValueError("must be a list")


def pool_fields(value: object) -> object:
    """The fields of a pool, from its spec (`NAME:total=4096,...`) or its TOML table."""
    fields = _parsed_spec(value) if isinstance(value, str) else value
    if isinstance(fields, BaseModel):
        return fields
    if isinstance(fields, dict):
        return _fields_of(fields, is_table=fields is value)
    raise ValueError(f"must be {_SPEC} or a table")


def _fields_of(table: dict[str, object], *, is_table: bool) -> dict[str, object]:
    unknown = ", ".join(repr(key) for key in table if key not in POOL_KEYS)
    if unknown:
        problem = f"has the unknown key {unknown}; a pool has {', '.join(POOL_KEYS)}"
        if is_table:
            problem += " (the server's own keys stand above the first [[pools]])"
        raise ValueError(problem)
    return {POOL_KEYS[key]: entry for key, entry in table.items()}


def _parsed_spec(spec: str) -> dict[str, object]:
    pool, colon, rest = spec.partition(":")
    fields: dict[str, object] = {"name": pool}
    for pair in rest.split(",") if colon else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"must be {_SPEC}; {pair!r} is no KEY=VALUE")
        if key in fields:
            raise ValueError(f"has the key {key!r} twice")
        fields[key] = value
    return fields
