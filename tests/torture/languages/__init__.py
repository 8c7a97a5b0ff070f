"""Sample engines in six languages on one pool that is too small for them, and in one memory.

    python -m tests.torture.languages --minutes 5 --seed 1

Engines are killed and started again under their names, have their blocks reclaimed while they run,
and stand still for longer than their lease; the server is killed twice. No stamp may be
overwritten, every language has to get on, and at the end nothing is held.
"""
