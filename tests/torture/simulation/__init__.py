"""A deterministic simulation of the core over its journal: engines, a network, a clock, crashes.

Nothing here waits, and nothing is random but what the seed says: a schedule that fails does so
each time.
"""
