"""Pools and their registry as pure state machines: commands in, outcomes out.

Nothing here reads a clock, draws a random number, logs, or does I/O, and every iteration order is
defined, so that the same commands always lead to the same state.
"""
