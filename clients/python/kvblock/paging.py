"""What every list that comes in pages has in common.

Rules:
- An answer without a token for the next page was the last one.
"""

from __future__ import annotations

from typing import Protocol, TypeVar


class PageRequest(Protocol):
    """Asks for a page: the first one, or the one that an earlier answer's token stands for."""

    page_token: str


class Page(Protocol):
    """Some rows, and the token that asks for those after them; empty: there are none."""

    next_page_token: str


PageRequestT = TypeVar("PageRequestT", bound=PageRequest)
PageT = TypeVar("PageT", bound=Page)
RowT = TypeVar("RowT")
