"""vLLM's own block pool, in a process of its own: the same waves, made when a line asks for them.

Rules:
- It is run by a Python that has vLLM, and imports nothing of this project.
- A line on the standard input is `SIZE WAVES`; a line with the nanoseconds of each wave answers it.
- Prefix caching is on, as it is in vLLM where nobody turns it off; no block is given a hash, so
  what is compared is taking blocks and giving them back.

`python vllm_blocks.py BLOCKS RISE PAUSE_SECONDS`
"""

import json
import sys
from importlib import import_module
from time import perf_counter_ns, sleep
from typing import Any


def main() -> None:
    """Serve waves until the input ends."""
    BlockPool = import_module("vllm.v1.core.block_pool").BlockPool
    blocks, rise, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    pool = BlockPool(num_gpu_blocks=blocks, enable_caching=True, hash_block_size=16)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        size, waves = map(int, line.split())
        took = [wave(pool, size, rise, pause) for _ in range(waves)]
        sys.stdout.write(json.dumps(took) + "\n")
        sys.stdout.flush()


def wave(pool: Any, size: int, rise: int, pause: float) -> int:
    """The nanoseconds of one wave, without its pauses."""
    take, give = pool.get_new_blocks, pool.free_blocks
    held = []
    took = 0
    for _ in range(rise):
        started = perf_counter_ns()
        for _ in range(size):
            held.append(take(1))
        took += perf_counter_ns() - started
        sleep(pause)
    for _ in range(rise):
        started = perf_counter_ns()
        for _ in range(size):
            give(held.pop())
        took += perf_counter_ns() - started
        sleep(pause)
    return took


if __name__ == "__main__":
    main()
