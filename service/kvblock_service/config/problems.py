"""What is wrong with a configuration, in words for the one who wrote it.

Rules:
- A problem names the source and the value as they were written, and what would be legal.
- The text names no type of this program.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kvblock_service.config.values import POOL_KEYS

_SHOWN_MAX = 120
_KEY_OF_FIELD = {field: key for key, field in POOL_KEYS.items()}
LISTS = {"pools": "--pool NAME:total=BLOCKS", "listen": "--listen unix:PATH"}
"""The settings that are lists, and an example of each."""


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` has one sentence for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Origin(NamedTuple):
    """Where a setting's value was written; `path` is set when that is a file."""

    label: str
    value: object
    path: str = ""

    def show(self, field: str, index: int | None) -> str:
        """The setting, or one entry of it, as it was written there."""
        value = self.value
        place = field
        if index is not None and isinstance(value, list):
            value = value[index]
            place = f"{field}[{index}]"
        if self.path:
            return f"{self.path}: {place} = {_shown(value)}"
        return f"{self.label}{'=' if self.label.isupper() else ' '}{_shown(value)}"


def sentences(error: ValidationError, origins: Mapping[str, Origin]) -> list[str]:
    """One sentence for each mistake that validation found."""
    return [_sentence(details, origins) for details in error.errors(include_url=False)]


def _sentence(details: ErrorDetails, origins: Mapping[str, Origin]) -> str:
    location = details["loc"]
    field = str(location[0])
    index = next((part for part in location[1:] if isinstance(part, int)), None)
    origin = origins.get(field)
    raised = details.get("ctx", {}).get("error")
    if origin is None and raised:
        return f"{field}: {raised}"
    if origin is None:
        return f"{field}: not given; give at least one, for instance {LISTS[field]}"
    problem = str(raised) if raised else details["msg"]
    key = location[-1]
    if isinstance(key, str) and index is not None:
        key = _KEY_OF_FIELD[key]
        is_missing = details["type"] == "missing"
        shown = _shown(details["input"])
        problem = f"{key} is not given" if is_missing else f"{key} {shown} {problem}"
    return f"{origin.show(field, index)}: {problem}"


def _shown(value: object) -> str:
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        value = " ".join(value)
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    return shown if len(shown) <= _SHOWN_MAX else f"{shown[: _SHOWN_MAX - 3]}..."
