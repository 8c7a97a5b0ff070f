"""What the simulated parts have in common: times, messages, stamps and the verdict.

Rules:
- Times are milliseconds of one clock, which is the host's monotonic one for all processes.
- A write that an engine began while its lease was valid lands at most LATE_MS later.
- QUARANTINE_MS is more than TTL_MS + LATE_MS: an engine whose lease was taken over learns of it up
  to a TTL later, and its last write lands after that.
- EXPIRED_MS is how long blocks wait whose lease ran out: their engine knows, and only its last
  write may still be on its way.
"""

from typing import NamedTuple

from kvblock_service.core.commands import Command, Outcome

TTL_MS = 1000
LATE_MS = 300
QUARANTINE_MS = 1400
EXPIRED_MS = LATE_MS + 20


class Violation(AssertionError):
    """The oracle's verdict: something happened that never may."""


class Message(NamedTuple):
    """A call on its way: which process sent it, and which of its calls it is."""

    sender: int
    life: int
    serial: int
    command: Command


class Answer(NamedTuple):
    """An answer on its way back."""

    to: Message
    outcome: Outcome


class Mark(NamedTuple):
    """What an engine writes into a block."""

    engine: int
    life: int
    counter: int


class Write(NamedTuple):
    """A write that is on its way to a block."""

    lands_ms: int
    block: int
    mark: Mark
