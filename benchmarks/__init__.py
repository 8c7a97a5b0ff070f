"""Benchmarks of a kvblock server: `python -m benchmarks`.

Rules:
- Every figure that compares two things is a ratio taken in one interleaved run: see `interleave`.
- Both sides of a comparison do the same work for the same bytes or numbers, are warmed up, and
  their answers are checked after the clock has stopped.
- What cannot be measured here is left out and said so; nothing is estimated.
"""
