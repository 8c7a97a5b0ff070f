"""Seeds of tests that choose at random: a new one each time, printed, and settable by TEST_SEED."""

import os
import time


def new_seed() -> int:
    """A seed, which a failing test shows in its output."""
    seed = int(os.environ.get("TEST_SEED") or time.time_ns() % 2**32)
    print(f"TEST_SEED={seed}")
    return seed
