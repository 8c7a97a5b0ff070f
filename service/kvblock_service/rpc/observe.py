"""What the telemetry learns of each command that a call carried out, and of those that waited.

Rules:
- Without an observer nothing is recorded and nothing is measured.
- An observer is called on the event loop, between the command and its answer: it must not block.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from opentelemetry.trace import SpanContext

from kvblock_service.core.commands import Refused


class Applied(NamedTuple):
    """One command: what was asked, what came of it, and what it waited for.

    `operation` is the RPC's name; `started_ns` is the wall clock (since 1970) when the service
    began on it; `step_id` is 0 outside a session. `parent` is the span of the engine that a step
    belongs to, if it named one.
    """

    operation: str
    pool: str
    engine: str
    started_ns: int
    lock_wait_ns: int
    asked_blocks: int = 0
    granted_blocks: int = 0
    freed_blocks: int = 0
    refused: Refused | None = None
    step_id: int = 0
    parent: SpanContext | None = None


Observer: TypeAlias = Callable[[Applied], None]

WaitObserver: TypeAlias = Callable[[str, float], None]
"""Is told of an allocation that has waited: its pool and for how long, in seconds."""
