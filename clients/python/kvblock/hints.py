"""What an engine tells of itself beside its work.

Rules:
- It is advice: no outcome follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineHints:
    """What an engine tells of itself beside a step or a renewal.

    It holds until the next hints and ends with the lease. It is advice: no outcome follows from it.
    """

    want_blocks: int = 0
    """Blocks that it lacks, those included that the step beside it asks for."""
    idle_blocks: int = 0
    """Blocks that it holds and could give back without preempting a sequence or computing anything
    again, after the step beside it."""
