"""What the journal has to say to an operator, as events for whoever owns the log."""

from typing import NamedTuple


class LogEvent(NamedTuple):
    """Something to log: `level` is `info` or `warning`."""

    level: str
    event: str
    fields: dict[str, object]
