"""What the figures are held against.

Rules:
- A bar is what a release has to reach, a goal is what is wanted; both are bounds in the direction
  that `more_is_better` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

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

    def figure(self, figures: Mapping[str, Any]) -> float | None:
        """The figure among others by their keys, if it was measured."""
        found = figures.get(self.key)
        return found.get(self.size) if isinstance(found, dict) else found

    def verdict(self, figure: float) -> str:
        """What a figure reaches: "goal", "bar", "missed", or "" where there is no bound."""
        if self.goal is None and self.bar is None:
            return ""
        for name, bound in (("goal", self.goal), ("bar", self.bar)):
            if bound is not None and (figure >= bound if self.more_is_better else figure <= bound):
                return name
        return "missed"


_SESSION_BOUNDS = {1: (1.1, 1.25), 32: (1.2, 1.35), 256: (1.3, 1.6), 2048: (1.6, 2.5)}
_REDIS_BOUNDS = {1: (None, None), 32: (2, 1.5), 256: (8, 4.5), 2048: (15, 8)}
_NUMBER_BOUNDS = dict.fromkeys(SIZES, (None, 1))
_VLLM_BOUNDS = {1: (None, None), 32: (None, 1), 256: (None, 1), 2048: (None, 1)}
_UNBOUND = dict.fromkeys(SIZES, (None, None))


def _by_size(
    key: str,
    text: str,
    bounds: Mapping[int, tuple[float | None, float | None]] = _UNBOUND,
    more_is_better: bool = False,
) -> list[Goal]:
    return [Goal(key, str(size), text, *of, more_is_better) for size, of in bounds.items()]


GOALS = (
    *_by_size("stream_step_over_echo", "step in a session / echo", _SESSION_BOUNDS),
    *_by_size("stream_step_over_tuned_echo", "step in a session / tuned echo"),
    *_by_size("unary_step_over_echo", "unary step / echo"),
    *_by_size("unary_step_over_tuned_echo", "unary step / tuned echo"),
    *_by_size("unary_step_over_stream_step", "unary step / step in a session"),
    *_by_size("acquire_over_allocate_step", "acquire + release / allocate + free", _NUMBER_BOUNDS),
    Goal("stash_acquire_us", "", "us for an acquire from the stash", None, 2),
    *_by_size("block_pool_over_vllm", "iteration by BlockPool / by vLLM's pool", _VLLM_BOUNDS),
    Goal("block_pool_steps_per_iteration", "", "steps of BlockPool an iteration", None, 1),
    Goal("unary_allocate_over_echo", "", "Allocate + Free / two echoes", None, 1.25),
    *_by_size("redis_over_stream_step", "Redis script / step", _REDIS_BOUNDS, True),
    *_by_size("tuned_redis_over_stream_step", "tuned Redis / step", more_is_better=True),
    Goal("large_pool_over_small", "", "pool of 2^24 blocks (quick: 2^20) / of 2^14", None, 1.15),
    Goal("large_pool_acquired_over_small", "", "the same, by number, half of it held", None, 1.05),
    Goal("bytes_per_block", "", "resident bytes per used block", None, 48),
    Goal("tracing_1pct_over_off", "", "1 % of steps traced / telemetry off", None, 1.1),
    Goal("journal_over_ephemeral", "", "step with a journal / without", None, 1.15),
    Goal("restart_seconds_1m_blocks", "", "seconds to restart with 1 M held blocks", None, 2),
    Goal("snapshot_pause_ms", "", "ms that a snapshot of 1 M blocks holds steps up", None, 5),
    Goal("leases_over_none", "", "step with a lease / without", None, 1.03),
    Goal("tracing_all_over_off", "", "all steps traced / telemetry off", None, None),
)
