"""What must not be in the log of a server under test.

Servers take warnings for errors. One that is raised where nobody can catch it, as that about a
coroutine that was never awaited, is in the log only.
"""

import re

_WARNING = re.compile(r"\b[A-Z]\w*Warning\b")


def no_warnings(log: str) -> None:
    """Fail when a warning of Python's is in a log."""
    assert not _WARNING.search(log), log


def no_faults(log: str) -> None:
    """Fail when a warning or a traceback is in a log."""
    no_warnings(log)
    assert "Traceback" not in log, log
