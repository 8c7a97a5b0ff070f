"""Two processes write into one pool's memory, and no byte of either is ever overwritten.

    python examples/two_processes.py [--steps N]

It starts a server of its own, and two engines as processes. Each maps the pool's memory, and in
each step frees a few sequences and takes blocks for others. It fills the blocks that it gets with
numbers of its own and looks at every one of them before it gives them back. The pool is too small
for both, so blocks wander from one to the other. It needs numpy and the `server` extra.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from random import Random
from typing import NamedTuple

import kvblock

POOL = "main:total=41,reserved=1,block_bytes=65536,regions=2,memory=shm"
ENGINES = ("engine-1", "engine-2")
SEQUENCES = 12


class Done(NamedTuple):
    """What an engine did: blocks written, verified, refused, and got from the other engine."""

    engine: str
    written: int
    verified: int
    refused: int
    inherited: int


def engine(address: str, number: int, steps: int) -> Done:
    """One engine's life; raises SystemExit when a byte of its blocks is not what it wrote."""
    random, tables, stamps = Random(number), dict[int, list[int]](), dict[int, int]()
    written = verified = refused = inherited = 0
    name = ENGINES[number - 1]
    with kvblock.connect(address, engine=name) as kv, kv.session() as session:
        arena = session.arena()
        memory = arena.numpy("uint64")  # [regions, total_blocks, values]
        for step in range(steps):
            gone = random.sample(sorted(tables), min(random.randint(0, 3), len(tables)))
            for block in (block for sequence in gone for block in tables.pop(sequence)):
                stamp = stamps.pop(block)
                if (memory[:, block] != stamp).any():
                    raise SystemExit(f"{name}: block {block} was overwritten")
                verified += 1
            absent = [sequence for sequence in range(SEQUENCES) if sequence not in tables]
            grow = random.sample(absent, min(2, len(absent)))
            counts = [random.randint(1, 8) for _ in grow]
            policy = kvblock.StepPolicy.IN_ORDER_UNTIL_REFUSED
            result = session.step(free=gone, allocate=grow, num_blocks=counts, policy=policy)
            granted = iter(result.block_numbers)
            for sequence, count in list(zip(grow, counts, strict=True))[: result.granted]:
                tables[sequence] = [next(granted) for _ in range(count)]
            refused += len(grow) - result.granted
            for block in result.block_numbers:
                if not session.lease_valid:
                    raise SystemExit(f"{name}: the lease is lost")
                inherited += int(memory[0, block, 0]) >> 32 not in (0, number)
                stamps[block] = number << 32 | step
                memory[:, block] = stamps[block]
                written += 1
        del memory
        arena.close()
    return Done(name, written, verified, refused, inherited)


def main() -> None:
    """Run both engines beside each other, and tell what they did."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1500, help="steps of each engine")
    steps = parser.parse_args().steps
    begun = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with kvblock.EmbeddedServer([POOL]) as server, spawn.Pool(len(ENGINES)) as processes:
        lives = [(server.address, number, steps) for number in range(1, len(ENGINES) + 1)]
        for done in processes.starmap(engine, lives, chunksize=1):
            print(
                f"{done.engine}: {done.written} blocks written, {done.verified} verified,"
                f" {done.refused} refused, {done.inherited} were the other's before"
            )
    print(f"every byte was its engine's own, in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
