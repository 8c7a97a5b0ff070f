"""What the telemetry learns of each command that a call carried out, and of those that waited.

Rules:
- Without an observer nothing is recorded and nothing is measured.
- An observer is called on the event loop, between the command and its answer: it must not block.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from opentelemetry.trace import SpanContext

from kvblock_service.core.commands import Answer, Command, Step


class AppliedCommand(NamedTuple):
    """One command: where, what came of it, and how long it waited for the pool's lock.

    `started_ns` is the wall clock (since 1970) when the service began on a session's step, 0 for
    other commands. `parent` is the span of the engine that a step belongs to, if it named one.
    """

    pool: str
    command: Command
    outcome: Answer
    lock_wait_ns: int
    started_ns: int = 0
    parent: SpanContext | None = None

    @property
    def step_id(self) -> int:
        """The step's in its session, 0 for other commands."""
        return self.command.step_id if isinstance(self.command, Step) else 0


Observer: TypeAlias = Callable[[AppliedCommand], None]

WaitObserver: TypeAlias = Callable[[str, float], None]
"""Gets an allocation that has waited: its pool and for how long, in seconds."""
