"""How many examples the tests on random input try: all of them, or a part where time is short.

`TEST_EXAMPLES=0.25` has a quarter of them tried, as `make check` does.
"""

import os

_PART = float(os.environ.get("TEST_EXAMPLES", "1"))
_LEAST = 10


def examples(number: int) -> int:
    """So many examples, or the part of them that is wanted now."""
    return max(_LEAST, round(number * _PART))
