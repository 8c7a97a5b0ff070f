"""What an iteration of an engine costs in virtual time, and how much work it takes on.

The shape is that of a batched decoder on one accelerator: every iteration reads the weights once,
however many sequences it serves; each served sequence adds its attention and sampling; each prompt
token that is computed adds compute. The figures are of the size that an 8-billion-parameter model
shows on a data-centre GPU. They are fixed, so that results can be compared, and whole, so that
virtual time is exact.
"""

from __future__ import annotations

ITERATION_NS = 20_000_000
"""One iteration by itself: 20 ms. Also how long an engine that could serve nothing waits."""
SEQUENCE_NS = 200_000
"""Each sequence that gains a token: 0.2 ms."""
PREFILL_TOKEN_NS = 50_000
"""Each prompt token that is computed, or computed again after a preemption: 0.05 ms."""

RUNNING_MAX = 256
"""Sequences that an engine runs at once."""
PREFILL_TOKENS_MAX = 8_192
"""Prompt tokens that one iteration computes; a longer prompt is computed alone."""
PATIENCE = 16
"""Refusals in a row after which an engine preempts even its only sequence."""
BORROWING = 4
"""An engine that shares its pool admits while what it then holds is at most this many times what is
then free: three hungry engines take 31 % each, a single one 80 %."""


def iteration_ns(served: int, prefilled_tokens: int) -> int:
    """Answer how long an iteration lasts, in nanoseconds."""
    return ITERATION_NS + served * SEQUENCE_NS + prefilled_tokens * PREFILL_TOKEN_NS


def blocks_needed(tokens: int, block_size: int) -> int:
    """Answer how many blocks hold this many tokens; a sequence holds at least one."""
    return max(1, -(-tokens // block_size))
