"""Where a session's steps take the trace context from that they send.

Rules:
- A session is one call, so an interceptor sees it begin and end, and none of its steps. The one
  that follows it is asked for the context of each step instead, where that step is made.
- Without such an interceptor nothing is asked and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

Traceparent: TypeAlias = Callable[[], str]
"""The W3C's traceparent of the caller's current span; empty when there is none."""


@runtime_checkable
class FollowsSteps(Protocol):
    """An interceptor that gives the trace context of a step."""

    def traceparent(self) -> str:
        """The W3C's traceparent of the caller's current span; empty when there is none."""


def traceparent_of(interceptors: Sequence[object]) -> Traceparent | None:
    """What gives the trace context of a step; None without an interceptor that does."""
    for interceptor in interceptors:
        if isinstance(interceptor, FollowsSteps):
            return interceptor.traceparent
    return None
