"""What a PromQL expression reads: its metrics with their matchers, and the labels it groups by.

As much of the language as deploy/ uses: matchers' values hold no braces.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')
_BARE = re.compile(r"(?<![\w.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_OPERATORS = {"and", "or", "unless", "bool"}


class Matcher(NamedTuple):
    label: str
    operator: str
    value: str

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a series that has the label at all is taken."""
        if self.label not in labels:
            return False
        if self.operator in ("=", "!="):
            equal = labels[self.label] == self.value
        else:
            equal = re.fullmatch(self.value, labels[self.label]) is not None
        return equal is (self.operator in ("=", "=~"))


class Selector(NamedTuple):
    metric: str
    matchers: tuple[Matcher, ...]


def selectors(expression: str) -> list[Selector]:
    """The metrics that an expression reads, each with what it asks of their labels."""
    rest = _RANGE.sub("", _GROUPING.sub("", expression))
    found = [Selector(name, matchers(inside)) for name, inside in _SELECTOR.findall(rest)]
    bare = set(_BARE.findall(_SELECTOR.sub("", rest))) - _OPERATORS
    return found + [Selector(name, ()) for name in sorted(bare)]


def matchers(text: str) -> tuple[Matcher, ...]:
    found = tuple(Matcher(*parts) for parts in _MATCHER.findall(text))
    assert not _MATCHER.sub("", text).strip(), f"no matchers: {text}"
    return found


def grouped_by(expression: str) -> set[str]:
    """The labels in an expression's `by`, `ignoring` and their like."""
    inside = ",".join(_GROUPING.findall(expression))
    return {label.strip() for label in inside.split(",") if label.strip()}
