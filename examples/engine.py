"""A sample engine: a loop of continuous batching on a pool with memory, with stamps for a model.

    python examples/engine.py --address unix:kvblock.sock --engine e [--seed N] [--iterations N]

It stamps every block that it is granted, and checks that nobody has written over it. Once a second,
and at the end, it prints a line of JSON. It exits with 0, with 1 when a stamp was overwritten, and
with 2 when it could not run. It ends after its last iteration, or with SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import struct
import sys
import time
from collections import Counter
from random import Random

import kvblock

SEQUENCES_MAX = 16
COMPUTE_SECONDS = 0.001
"""Stands for the time that a model computes."""
TIMEOUT = 5.0
STAMP = struct.Struct("<QQLL")
COUNTS = ("iterations", "granted", "refused", "checked", "overwritten", "leases_lost")


class Engine:
    """Sequences under one lease."""

    def __init__(self, session: kvblock.Session, counts: Counter[str], random: Random) -> None:
        self.session, self.counts, self.random = session, counts, random
        self.arena = session.arena()
        self.tables: dict[int, list[int]] = {}
        self.next = 1

    def iterate(self) -> None:
        """Some sequences end, some grow by a block, and one begins."""
        dice = {sequence: self.random.randrange(12) for sequence in self.tables}
        free = [sequence for sequence, one in dice.items() if one == 0]
        allocate = [sequence for sequence, one in dice.items() if 1 <= one <= 4]
        num_blocks = [1] * len(allocate)
        if len(self.tables) < SEQUENCES_MAX:
            allocate.append(self.next)
            num_blocks.append(self.random.randrange(1, 9))
            self.next += 1
        for sequence in free:
            for place in range(len(self.tables[sequence])):
                self.check(sequence, place)
        policy = kvblock.StepPolicy.IN_ORDER_UNTIL_REFUSED
        result = self.step(free=free, allocate=allocate, num_blocks=num_blocks, policy=policy)
        for sequence in free:
            del self.tables[sequence]
        granted = iter(result.block_numbers)
        for sequence, count in zip(allocate[: result.granted], num_blocks, strict=False):
            table = self.tables.setdefault(sequence, [])
            for _ in range(count):
                table.append(next(granted))
                self.stamp(sequence, len(table) - 1)
        for sequence in self.random.sample(sorted(self.tables), min(4, len(self.tables))):
            self.check(sequence, self.random.randrange(len(self.tables[sequence])))
        self.counts["iterations"] += 1
        self.counts["granted"] += len(result.block_numbers)
        self.counts["refused"] += len(allocate) - result.granted

    def step(self, **work: object) -> kvblock.StepResult:
        """Make a step, however long the server is away."""
        try:
            return self.session.step(**work)  # type: ignore[arg-type]
        except (kvblock.UnavailableError, kvblock.DeadlineExceededError):
            while True:
                try:
                    return self.session.recover()
                except (kvblock.UnavailableError, kvblock.DeadlineExceededError):
                    continue

    def pieces(self, sequence: int, place: int) -> list[memoryview]:
        """Both ends of a block, in each region."""
        block, size = self.tables[sequence][place], STAMP.size
        regions = range(self.arena.regions)
        whole = [self.arena.block(block, region) for region in regions]
        return [end for piece in whole for end in (piece[:size], piece[-size:])]

    def stamp_of(self, sequence: int, place: int) -> bytes:
        """Who has a block: epoch, sequence, place, engine."""
        engine = sum(self.session.engine.encode())
        return STAMP.pack(self.session.epoch, sequence, place, engine)

    def stamp(self, sequence: int, place: int) -> None:
        """Write to a block, if it is this engine's at that moment."""
        for piece in self.pieces(sequence, place):
            self.session.check_lease()
            piece[:] = self.stamp_of(sequence, place)

    def check(self, sequence: int, place: int) -> None:
        """Look whether a block has what was written to it."""
        stamp = self.stamp_of(sequence, place)
        whole = all(piece == stamp for piece in self.pieces(sequence, place))
        # What was read counts only if the block was the engine's until then.
        self.session.check_lease()
        self.counts["checked"] += 1
        if not whole:
            self.counts["overwritten"] += 1
            block = self.tables[sequence][place]
            print(f"block {block}, place {place} of {sequence}, was overwritten", file=sys.stderr)


def run(kv: kvblock.Client, iterations: int, random: Random, counts: Counter[str]) -> None:
    """Iterate under one lease after the other."""
    printed = time.monotonic()
    while counts["iterations"] < iterations:
        try:
            with kv.session() as session:
                engine = Engine(session, counts, random)
                while counts["iterations"] < iterations:
                    engine.iterate()
                    if time.monotonic() - printed >= 1.0:
                        printed = time.monotonic()
                        show(kv.engine, counts, ended=False)
                    time.sleep(COMPUTE_SECONDS)
        except kvblock.LeaseLostError as lost:
            counts["leases_lost"] += 1
            print(f"lost: {lost}", file=sys.stderr)
        except kvblock.FailedPreconditionError as error:
            if error.retry_after is None:
                raise
            # Another client has the name, at most until then.
            time.sleep(error.retry_after)
        except (kvblock.UnavailableError, kvblock.DeadlineExceededError) as error:
            print(f"no server: {error}", file=sys.stderr)


def show(engine: str, counts: Counter[str], *, ended: bool) -> None:
    """One line for whoever started it."""
    told = {name: counts[name] for name in COUNTS}
    print(json.dumps({"language": "python", "engine": engine, **told, "ended": ended}), flush=True)


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=sys.maxsize)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    counts = Counter[str]()
    try:
        with kvblock.connect(given.address, engine=given.engine, timeout=TIMEOUT) as kv:
            run(kv, given.iterations, Random(given.seed), counts)
    except kvblock.KVBlockError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit:
        print("told to end", file=sys.stderr)
    show(given.engine, counts, ended=True)
    return int(counts["overwritten"] > 0)


if __name__ == "__main__":
    sys.exit(main())
