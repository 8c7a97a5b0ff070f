"""What the tests need of a document: its code blocks, tables, links and code spans."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced code block: its language, the words behind it, its text and its line."""

    language: str
    marks: tuple[str, ...]
    text: str
    line: int
    output: str | None
    """The text block that follows at once, if one does."""


class Table(NamedTuple):
    """A table under its nearest heading; cells are as written, with code spans in backticks."""

    heading: str
    rows: list[list[str]]
    line: int


@cache
def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text())


def blocks(path: Path) -> list[Block]:
    found = []
    parsed = tokens(path)
    for token, after in zip(parsed, [*parsed[1:], None], strict=True):
        if token.type == "fence":
            language, *marks = token.info.split() or [""]
            is_output = after is not None and after.type == "fence" and after.info == "text"
            output = after.content if after is not None and is_output else None
            found.append(Block(language, tuple(marks), token.content, line_of(token), output))
    return found


def tables(path: Path) -> list[Table]:
    found: list[Table] = []
    heading = ""
    parsed = tokens(path)
    for token, after in pairwise(parsed):
        if token.type == "heading_open":
            heading = after.content
        elif token.type == "table_open":
            found.append(Table(heading, [], line_of(token)))
        elif token.type == "tr_open":
            found[-1].rows.append([])
        elif token.type in ("th_open", "td_open"):
            found[-1].rows[-1].append(after.content)
    return found


def headings(path: Path) -> list[str]:
    return [b.content for a, b in pairwise(tokens(path)) if a.type == "heading_open"]


def links(path: Path) -> Iterator[tuple[int, str]]:
    """The line of each link's paragraph, and where it leads."""
    for line, token in inline(path):
        if token.type == "link_open":
            yield line, str(token.attrs["href"])


def spans(path: Path) -> Iterator[tuple[int, str]]:
    """The line of each code span's paragraph, and its text."""
    for line, token in inline(path):
        if token.type == "code_inline":
            yield line, token.content


def inline(path: Path) -> Iterator[tuple[int, Token]]:
    for token in tokens(path):
        if token.type == "inline":
            for child in token.children or []:
                yield line_of(token), child


def line_of(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0
