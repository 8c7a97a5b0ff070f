"""TOML, from bytes to values.

Rules:
- Whatever the bytes are, the outcome is a table that is no deeper than NESTING_MAX, or a ValueError
  whose text completes a sentence that begins with the file's path.
- The text quotes nothing of the file: it may hold secrets.
"""

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NESTING_MAX = 16
"""How many lists and tables may stand in one another; the files of a server have three."""
_TOO_DEEP = f"lists and tables are nested deeper than {NESTING_MAX}"


def toml_table(content: bytes) -> dict[str, Any]:
    """The top-level table; raises ValueError where the bytes are no TOML, or nested too deep."""
    try:
        table: dict[str, Any] = tomllib.loads(content.decode())
    except ValueError as error:
        raise ValueError(f"no valid TOML: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if _is_too_deep(table):
        raise ValueError(_TOO_DEEP)
    return table


def _is_too_deep(table: dict[str, Any]) -> bool:
    # Level by level: a dotted key can nest more tables than a recursion could follow.
    level: list[Any] = [table]
    for _ in range(NESTING_MAX):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
