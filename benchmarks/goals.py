"""What the figures are held against.

Rules:
- A bar is what a release has to reach, a goal is what is wanted; both are bounds in the direction
  that `more_is_better` tells.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.workload import SIZES


class Goal(NamedTuple):
    """One figure and its bounds.

    `key` is its name in the JSON, `size` the step size it belongs to, "" for none.
    """

    key: str
    size: str
    text: str
    goal: float | None
    bar: float | None
    more_is_better: bool = False

    def verdict(self, figure: float) -> str:
        """How a figure stands: "goal", "bar", "missed", or "" where there is no bound."""
        if self.goal is None and self.bar is None:
            return ""
        for name, bound in (("goal", self.goal), ("bar", self.bar)):
            if bound is not None and (figure >= bound if self.more_is_better else figure <= bound):
                return name
        return "missed"


_STREAM = "stream_step_over_echo"
_STREAM_TUNED = "stream_step_over_tuned_echo"
_UNARY = "unary_step_over_echo"
_UNARY_TUNED = "unary_step_over_tuned_echo"
_REDIS = "redis_over_stream_step"
_REDIS_TUNED = "tuned_redis_over_stream_step"


def _unbound(key: str, text: str) -> list[Goal]:
    return [Goal(key, str(size), text, None, None) for size in SIZES]


GOALS = (
    Goal(_STREAM, "1", "step in a session / echo", 1.1, 1.25),
    Goal(_STREAM, "32", "step in a session / echo", 1.2, 1.35),
    Goal(_STREAM, "256", "step in a session / echo", 1.3, 1.6),
    Goal(_STREAM, "2048", "step in a session / echo", 1.6, 2.5),
    *_unbound(_STREAM_TUNED, "step in a session / tuned echo"),
    *_unbound(_UNARY, "unary step / echo"),
    *_unbound(_UNARY_TUNED, "unary step / tuned echo"),
    Goal("unary_allocate_over_echo", "", "Allocate + Free / two echoes", None, 1.25),
    Goal(_REDIS, "1", "Redis script / step", None, None, True),
    Goal(_REDIS, "32", "Redis script / step", 2, 1.5, True),
    Goal(_REDIS, "256", "Redis script / step", 8, 4.5, True),
    Goal(_REDIS, "2048", "Redis script / step", 15, 8, True),
    *(Goal(_REDIS_TUNED, str(size), "tuned Redis / step", None, None, True) for size in SIZES),
    Goal("large_pool_over_small", "", "pool of 2^24 blocks (quick: 2^20) / of 2^14", None, 1.15),
    Goal("bytes_per_block", "", "resident bytes per used block", None, 48),
    Goal("tracing_1pct_over_off", "", "1 % of steps traced / telemetry off", None, 1.1),
    Goal("journal_over_ephemeral", "", "step with a journal / without", None, 1.15),
    Goal("restart_seconds_1m_blocks", "", "seconds to restart with 1 M held blocks", None, 2),
    Goal("snapshot_pause_ms", "", "ms that a snapshot of 1 M blocks holds steps up", None, 5),
    Goal("leases_over_none", "", "step with a lease / without", None, 1.03),
    Goal("tracing_all_over_off", "", "all steps traced / telemetry off", None, None),
)
