"""What a check of `kvblock doctor` gives.

Rules:
- A problem keeps somebody from using the server, now or at its next start. A warning is what may
  become one, or is not what most people mean. What could not be looked at is skipped, and says why.
- Everything but what is in order says what to do.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    SKIPPED = "skipped"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """What was found, and what to do about it."""

    check: str
    status: Status
    text: str
    action: str = ""


def ok(check: str, text: str) -> Finding:
    """All is as it should be."""
    return Finding(check, Status.OK, text)


def skipped(check: str, text: str, action: str) -> Finding:
    """It could not be looked at; `action` is how it can."""
    return Finding(check, Status.SKIPPED, text, action)


def warning(check: str, text: str, action: str) -> Finding:
    """Something may become a problem."""
    return Finding(check, Status.WARNING, text, action)


def problem(check: str, text: str, action: str) -> Finding:
    """Something does not work."""
    return Finding(check, Status.PROBLEM, text, action)


def in_bytes(count: int) -> str:
    """A number of bytes for people."""
    size, unit = count / 1024**2, "MiB"
    if size >= 1024:
        size, unit = size / 1024, "GiB"
    return f"{size:,.1f} {unit}"
