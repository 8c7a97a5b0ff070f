"""What a check of `kvblock doctor` gives.

Rules:
- A problem keeps somebody from using the server, now or at its next start. A warning is what may
  become one, or is not what most people mean. What could not be looked at is skipped, and says why.
- Everything but what is in order says what to do.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import NamedTuple


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """What was found, and what to do about it; `action` is empty where all is in order."""

    status: Status
    check: str
    text: str
    action: str


skipped = partial(Finding, Status.SKIPPED)
"""It could not be looked at; the action is how it can."""
warning = partial(Finding, Status.WARNING)
"""Something may become a problem."""
problem = partial(Finding, Status.PROBLEM)
"""Something does not work."""


def ok(check: str, text: str) -> Finding:
    """All is as it should be."""
    return Finding(Status.OK, check, text, "")


def in_bytes(count: int) -> str:
    """A number of bytes for people."""
    size, unit = count / 1024**2, "MiB"
    if size >= 1024:
        size, unit = size / 1024, "GiB"
    return f"{size:,.1f} {unit}"
