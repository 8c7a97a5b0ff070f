"""The figures of a replay: what the JSON holds and the table shows.

`document` answers
  - `parameters`: what was replayed: trace, format, requests, limit, engines, blocks, block_size,
    modes.
  - `virtual`: by mode, the same for the same input on every machine. Times are virtual seconds;
    `pool_use_*` is a share of the mode's blocks, 0 to 1, the mean weighted by virtual time. Queue
    waits reach from a request's arrival to its first admission, over all finished requests, and are
    null when there are none.
  - `measured`: by mode, what the clock said: the duration of Step calls, and Steps per second of
    the whole run, the simulation's own work included.
Percentiles are values that occurred (nearest rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kvblock_replay.driver import Measured, Run
from kvblock_replay.simulation import Outcome

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was replayed."""

    trace: str
    format: str
    requests: int
    limit: int | None
    engines: int
    blocks: int
    block_size: int
    modes: tuple[str, ...]

    @property
    def setting(self) -> str:
        """Engines and pool, in words."""
        engines = f"{self.engines:,} {'engine' if self.engines == 1 else 'engines'}"
        return f"{engines}, {self.blocks:,} blocks of {self.block_size} tokens"


Figures = dict[str, float | None]
"""Figures by their names; None where a mode finished or asked nothing."""


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """Answer the smallest value that at least `percent` % of the values do not exceed."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None


def virtual(outcome: Outcome) -> Figures:
    """Answer the figures of an outcome."""
    counts = outcome.counts
    return {
        "requests_finished": counts.finished,
        "requests_skipped": outcome.skipped,
        "prompt_tokens": counts.prompt_tokens,
        "generated_tokens": counts.generated_tokens,
        "preemptions": counts.preemptions,
        "recomputed_tokens": counts.recomputed_tokens,
        "steps": outcome.steps,
        "queue_wait_p50_s": _over(percentile(outcome.waits_ns, 50), _NS_PER_S),
        "queue_wait_p95_s": _over(percentile(outcome.waits_ns, 95), _NS_PER_S),
        "makespan_s": outcome.makespan_ns / _NS_PER_S,
        "pool_use_mean": outcome.pool_use.mean(outcome.makespan_ns) / outcome.total_blocks,
        "pool_use_peak": outcome.peak_blocks / outcome.total_blocks,
        "pool_blocks": outcome.total_blocks,
    }


def clocked(measured: Measured) -> Figures:
    """Answer the figures of what was measured."""
    latencies = sorted(measured.latencies_ns)
    rate = len(latencies) * _NS_PER_S / measured.wall_ns if latencies else None
    return {
        "rpc_latency_p50_ms": _over(percentile(latencies, 50), _NS_PER_MS),
        "rpc_latency_p99_ms": _over(percentile(latencies, 99), _NS_PER_MS),
        "steps_per_second": rate,
        "wall_s": measured.wall_ns / _NS_PER_S,
    }


def document(parameters: Parameters, runs: Sequence[Run]) -> dict[str, object]:
    """Answer everything as what `json.dumps` takes."""
    return {
        "parameters": asdict(parameters),
        "virtual": {run.mode.value: virtual(run.outcome) for run in runs},
        "measured": {run.mode.value: clocked(run.measured) for run in runs},
    }


def _over(value: int | None, unit: int) -> float | None:
    return None if value is None else value / unit
