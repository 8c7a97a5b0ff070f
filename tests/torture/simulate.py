"""Runs simulated schedules: `python -m tests.torture.simulate --schedules 100000 --seed 1`.

Rules:
- Schedule K of seed S is always the same, whatever else runs: `--seed S --only K` shows its events.
- The exit code is 1 when a schedule fails; the seed and the number that replay it are printed.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tests.torture.simulation.model import Violation
from tests.torture.simulation.plants import NONE, PLANTS, Plant, planted
from tests.torture.simulation.schedule import Schedule

BATCH = 500


class Failure(NamedTuple):
    """A schedule in which the oracle found something."""

    number: int
    text: str


class Batch(NamedTuple):
    """What came of some schedules, up to the first one that failed."""

    passed: int
    counts: "Counter[str]"
    failure: Failure | None


def run_batch(seed: int, numbers: range, plant: Plant) -> Batch:
    """Run schedules one after the other."""
    counts: Counter[str] = Counter()
    with planted(plant):
        for done, number in enumerate(numbers):
            schedule = Schedule(f"{seed}/{number}", plant)
            try:
                schedule.run()
            except Violation as violation:
                return Batch(done, counts, Failure(number, str(violation)))
            counts.update({str(getattr(k, "value", k)): n for k, n in schedule.counts.items()})
    return Batch(len(numbers), counts, None)


def run_all(seed: int, count: int, plant: Plant, processes: int) -> Batch:
    """Run schedules in several processes; the first failure by number counts."""
    ranges = [range(at, min(at + BATCH, count)) for at in range(0, count, BATCH)]
    counts: Counter[str] = Counter()
    passed, failures, started = 0, [], time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(run_batch, seed, numbers, plant) for numbers in ranges]
        for number, job in enumerate(as_completed(jobs), start=1):
            if job.cancelled():
                continue
            batch = job.result()
            passed += batch.passed
            counts.update(batch.counts)
            if batch.failure:
                failures.append(batch.failure)
                for waiting in jobs:
                    waiting.cancel()
            if sys.stderr.isatty() or number % 50 == 0:
                rate = passed / (time.monotonic() - started)
                print(f"\r{passed:,} schedules, {rate:,.0f}/s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return Batch(passed, counts, min(failures, default=None))


def replay(seed: int, number: int, plant: Plant) -> int:
    """Show one schedule's events and its verdict."""
    schedule = Schedule(f"{seed}/{number}", plant, traced=True)
    verdict = "passed"
    with planted(plant):
        try:
            schedule.run()
        except Violation as violation:
            verdict = f"VIOLATION: {violation}"
    for event in schedule.events:
        print(event)
    print(f"seed {seed}, schedule {number}: {verdict}")
    return int(verdict != "passed")


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.simulate", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="K", help="replay one schedule")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to find")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    plant = PLANTS[given.plant] if given.plant else NONE
    if given.only is not None:
        return replay(given.seed, given.only, plant)
    started = time.monotonic()
    done = run_all(given.seed, given.schedules, plant, given.processes)
    seconds = time.monotonic() - started
    print(f"{done.passed:,} schedules passed, {seconds:.1f} s, {done.passed / seconds:,.0f}/s")
    for name, count in sorted(done.counts.items()):
        print(f"  {name}: {count:,}")
    if done.failure is None:
        return 0
    again = f"--seed {given.seed} --only {done.failure.number}"
    plant_again = f" --plant {given.plant}" if given.plant else ""
    print(f"VIOLATION in schedule {done.failure.number}: {done.failure.text}")
    print(f"replay: python -m tests.torture.simulate {again}{plant_again}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
