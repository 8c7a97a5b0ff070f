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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_Checked = TypeVar("_Checked")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_SPEC = (
    "NAME:total=BLOCKS[,block_size=TOKENS][,device=ID][,reserved=BLOCKS][,block_bytes=BYTES]"
    "[,regions=N][,layout=TEXT][,memory=none|shm|URI][,quarantine=SECONDS]"
)
LAYOUT_MAX = 256
"""Characters that a pool's layout may have."""
URI_MAX = 1024
"""Characters that the URI of a pool's memory may have."""
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MODE = re.compile(r"0?[0-7]{3}")
_USER_MAX = 2**32 - 2
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

POOL_KEYS = {
    "name": "name",
    "total": "total_blocks",
    "block_size": "block_size",
    "device": "device_id",
    "reserved": "reserved_blocks",
    "block_bytes": "block_bytes",
    "regions": "regions",
    "layout": "layout",
    "memory": "memory",
    "quarantine": "quarantine",
}
"""The keys of a pool as users write them, and the fields they set."""


@dataclass(frozen=True)
class Check(Generic[_Checked]):
    """A check, as a function and as an annotation of a field.

    `metavar` stands for the value in a help text, `legal` says what it must be, and `read` answers
    the value in its type, None for one that is not legal. In a field that may be None, None is.
    """

    metavar: str
    legal: str
    read: Callable[[object], _Checked | None]

    def __call__(self, value: object) -> _Checked:
        """The value in its type."""
        found = self.read(value)
        if found is None:
            raise ValueError(f"must be {self.legal}")
        return found

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """What pydantic asks an annotation for."""
        passes_none = type(None) in get_args(source)
        return core_schema.no_info_before_validator_function(
            lambda value: None if value is None and passes_none else self(value), handler(source)
        )


def whole(low: int, high: int) -> Check[int]:
    """Whole numbers from `low` to `high`."""

    def read(value: object) -> int | None:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        return value if type(value) is int and low <= value <= high else None

    return Check("N", f"a whole number from {low} to {high}", read)


def seconds(low: float, high: float) -> Check[float]:
    """Seconds from `low` to `high`, with fractions."""

    def read(value: object) -> float | None:
        # Of what Python takes besides, blanks, `1_0` and digits of other scripts, nothing is meant.
        if isinstance(value, bool) or (isinstance(value, str) and not _DECIMAL.fullmatch(value)):
            return None
        try:
            number = float(value) if isinstance(value, (str, int, float)) else math.nan
        except OverflowError:
            return None
        return number if low <= number <= high else None

    return Check("SECONDS", f"a number of seconds from {low:.10g} to {high:.10g}", read)


def one_of(*words: str) -> Check[str]:
    """One of a few words, in any case; in lower case."""

    def read(value: object) -> str | None:
        return value.lower() if isinstance(value, str) and value.lower() in words else None

    return Check("WORD", f"one of: {', '.join(words)}", read)


def _matching(pattern: re.Pattern[str]) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and pattern.fullmatch(value) else None


def _layout(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > LAYOUT_MAX or not value.isprintable():
        return None
    return value


def _memory(value: object) -> str | None:
    if value in ("none", "shm"):
        return str(value)
    found = _matching(_URI)(value)
    return None if found is None or len(found) > URI_MAX else found


def _path(value: object) -> str | None:
    found = _matching(re.compile(r"[^\0]+"))(value)
    return None if found is None else str(Path(found).absolute())


def _mode(value: object) -> str | None:
    # No number: 660 in a TOML file would be another mode than 0660.
    found = _matching(_MODE)(value)
    return None if found is None else f"{int(found, 8):04o}"


def _truth(value: object) -> bool | None:
    return _TRUTH.get(str(value).lower()) if isinstance(value, (str, bool)) else None


def _directory(value: object) -> str | None:
    found = text.read(value)
    return None if found is None else str(Path(found).expanduser().absolute())


text = Check("TEXT", "a text that is not empty", _matching(re.compile(".+", re.DOTALL)))
name = Check("NAME", "1 to 128 characters from A-Z a-z 0-9 . _ -", _matching(_NAME))
layout_text = Check("TEXT", f"at most {LAYOUT_MAX} printable characters", _layout)
"""How the bytes of a block are arranged, in the words of its engines."""
memory_text = Check(
    "WORD", f"none, shm, or a URI of at most {URI_MAX} printable ASCII characters", _memory
)
"""Where the memory of a pool is."""
path = Check("FILE", "the path of a file", _path)
"""The path of a file, made absolute."""
directory = Check("DIR", "the path of a directory", _directory)
"""A directory's path, made absolute; `~` is the user's home."""
mode = Check("MODE", "a text of three octal digits, such as 0660", _mode)
"""The mode of a file, as four octal digits."""
truth = Check("", "true or false", _truth)


def _account(kind: str, look_up: Callable[[str], int]) -> Check[int]:
    def read(value: object) -> int | None:
        if type(value) is int:
            return value if 0 <= value <= _USER_MAX else None
        if not isinstance(value, str) or not value or "\0" in value:
            return None
        if value.isascii() and value.isdigit():
            return read(int(value[:20]))
        try:
            return look_up(value)
        except (KeyError, UnicodeEncodeError):
            return None

    return Check(kind.upper(), f"the name or the number of a {kind} of this machine", read)


def _as_written(number: Check[int]) -> Check[str]:
    return Check(
        number.metavar,
        number.legal,
        lambda value: None if number.read(value) is None else str(value),
    )


user_number = _account("user", lambda known: pwd.getpwnam(known).pw_uid)
"""The number of a user of this machine, who is given by name or number."""
group_number = _account("group", lambda known: grp.getgrnam(known).gr_gid)
"""The number of a group of this machine, which is given by name or number."""
user, group = _as_written(user_number), _as_written(group_number)


def default_state_dir() -> str:
    """Where a server has its state without `state_dir`.

    `/var/lib/kvblock` for root, for others `kvblock` in $XDG_STATE_HOME or `~/.local/state`.
    Root's does not follow the variable, which a login shell may have and a system service has not.
    """
    if os.geteuid() == 0:
        return "/var/lib/kvblock"
    home = os.environ.get("XDG_STATE_HOME", "")
    # The specification has relative paths ignored.
    state = Path(home) if Path(home).is_absolute() else Path("~/.local/state")
    return directory(str(state / "kvblock"))


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
