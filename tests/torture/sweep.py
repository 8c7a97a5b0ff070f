"""Damages a state directory in every way: `python -m tests.torture.sweep`.

Rules:
- The directories are written by the present code: a server that is killed twice, with a snapshot
  and several segments, and at the end killed or stopped in order.
- Each case is one damage, a start, and a verdict; see `damage.cases` and `damage.judge`. The exit
  code is 1 when there is a violation.
- `--sample N` draws N cases of each directory by `--seed`.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from kvblock_service.core.pool import Geometry
from tests.torture.damage.cases import Case, cases_of, held_cases
from tests.torture.damage.judge import (
    EXACT,
    GOOD,
    REFUSED,
    Verdict,
    expectation,
    judged,
    judged_while_held,
)
from tests.torture.damage.starting import Start, Starter
from tests.torture.damage.tree import Tree

POOLS = (Geometry("main", 24, 16, 3), Geometry("tiny", 1, 8, 0))
CHUNK = 50
PROGRESS_SECONDS = 10.0


class Variant(NamedTuple):
    """How a directory is written; `places_max`: see `cases_of`."""

    durability: str
    end: str
    places_max: int

    def __str__(self) -> str:
        return f"durability {self.durability}, {self.end}"


VARIANTS = (
    Variant("process", "killed", 20_000),
    Variant("host", "killed", 20_000),
    Variant("process", "stopped", 200),
)


class Directory(NamedTuple):
    """A directory to sweep, and what a start from it has to come to."""

    variant: Variant
    tree: Tree
    start: Start

    @classmethod
    def written(cls, variant: Variant, place: Path) -> "Directory":
        """Have a server write one."""
        state = place / "written"
        command = [sys.executable, "-m", "tests.fixtures.history", str(state)]
        command += ["--stop"] if variant.end == "stopped" else []
        command += ["--durability", variant.durability]
        subprocess.run(command, check=True)
        tree = Tree.read(state)
        shutil.rmtree(state)
        start = Start(POOLS, variant.durability)
        with Starter() as starter:
            return cls(variant, tree, expectation(tree, start, place, starter))


class Job(NamedTuple):
    """Some cases of one directory; `held`: while a server has it."""

    directory: Directory
    held: bool
    cases: list[Case]


def run(job: Job) -> list[Verdict]:
    """Judge cases one after the other."""
    judge = judged_while_held if job.held else judged
    with tempfile.TemporaryDirectory(prefix="kvb", dir=_place()) as place, Starter() as starter:
        tree, start = job.directory.tree, job.directory.start
        return [judge(case, tree, start, Path(place), starter) for case in job.cases]


def jobs_of(directory: Directory, sample: int | None, seed: int) -> list[Job]:
    """The cases of a directory in pieces: all, or so many of each kind of sweep."""
    jobs = []
    for held, cases in (
        (False, cases_of(directory.tree, directory.variant.places_max)),
        (True, list(held_cases(directory.tree, directory.start.gone))),
    ):
        if sample is not None:
            count = min(len(cases), max(1, sample // 10) if held else sample)
            cases = _drawn(cases, count, random.Random(f"{seed}/{directory.variant}/{held}"))
        jobs += [Job(directory, held, cases[at : at + CHUNK]) for at in range(0, len(cases), CHUNK)]
    return jobs


def _drawn(cases: list[Case], count: int, source: random.Random) -> list[Case]:
    """So many cases, of each kind about the same number: most are flips."""
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    for found in kinds.values():
        source.shuffle(found)
    turns = sorted(
        ((turn, kind, case) for kind, found in kinds.items() for turn, case in enumerate(found)),
        key=lambda one: one[:2],
    )
    return [case for _, _, case in turns[:count]]


def sweep(directory: Directory, sample: int | None, seed: int, processes: int) -> list[Verdict]:
    """Judge the cases of a directory in several processes."""
    jobs = jobs_of(directory, sample, seed)
    count = sum(len(job.cases) for job in jobs)
    verdicts: list[Verdict] = []
    shown = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        for done in as_completed([pool.submit(run, job) for job in jobs]):
            verdicts += done.result()
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                bad = len(violations_of(verdicts))
                text = f"{len(verdicts):,} of {count:,} cases, {bad:,} violations"
                print(text, file=sys.stderr, flush=True)
    return verdicts


def serve(directory: Directory, seed: int, place: Path) -> list[Verdict]:
    """Judge one case of each kind with real servers."""
    # Not before the processes of the sweep were forked: it starts threads.
    from tests.torture.damage.serving import ServerStarter

    tree, starter = directory.tree, ServerStarter()
    start = expectation(tree, directory.start, place, starter)
    cases = cases_of(tree, directory.variant.places_max)
    kinds = {case.kind for case in cases}
    verdicts = [
        judged(case, tree, start, place, starter)
        for case in _drawn(cases, len(kinds), random.Random(f"{seed}/served"))
    ]
    held = _drawn(list(held_cases(tree, start.gone)), 3, random.Random(f"{seed}/served while held"))
    return verdicts + [judged_while_held(case, tree, start, place, starter) for case in held]


def violations_of(verdicts: list[Verdict]) -> list[Verdict]:
    """Those that ended neither exactly nor refused."""
    return [verdict for verdict in verdicts if verdict.kind not in GOOD]


def show(title: str, verdicts: list[Verdict]) -> None:
    """Print a table of what was damaged and what came of it, and the violations by kind."""
    print(f"\n{title}")
    print(f"  {'damage':<12}{'cases':>10}{'exact':>10}{'refused':>10}{'violations':>12}")
    for kind, same in _grouped(verdicts, lambda verdict: verdict.case.kind).items():
        counts = Counter(verdict.kind for verdict in same)
        bad = len(violations_of(same))
        print(f"  {kind:<12}{len(same):>10,}{counts[EXACT]:>10,}{counts[REFUSED]:>10,}{bad:>12,}")
    for kind, found in _grouped(violations_of(verdicts), lambda verdict: verdict.kind).items():
        print(f"VIOLATION, {len(found):,} times: {kind}")
        ways = _grouped(found, lambda one: f"{one.case.kind} {Path(one.case.path).name}")
        for way, same in sorted(ways.items(), key=lambda item: -len(item[1])):
            print(f"  {way}: {len(same):,} times; {same[0].case}: {same[0].text}")
    sys.stdout.flush()


def _grouped(verdicts: list[Verdict], key: Callable[[Verdict], str]) -> dict[str, list[Verdict]]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(key(verdict), []).append(verdict)
    return groups


def _place() -> str | None:
    """Memory, where there is a file system of it: everything is written thousands of times."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.sweep", description=__doc__)
    parser.add_argument("--sample", type=int, metavar="N", help="cases of each directory")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="K", help="the Kth kind of directory, from 0")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    started = time.monotonic()
    found: list[Verdict] = []
    directories = []
    for variant in VARIANTS if given.only is None else VARIANTS[given.only : given.only + 1]:
        with tempfile.TemporaryDirectory(prefix="kvb", dir=_place()) as place:
            directory = Directory.written(variant, Path(place))
        directories.append(directory)
        verdicts = sweep(directory, given.sample, given.seed, given.processes)
        show(f"{variant}: {len(directory.tree.files)} files", verdicts)
        found += verdicts
    for directory in directories if given.sample is None else []:
        with tempfile.TemporaryDirectory(prefix="kvb", dir=_place()) as place:
            verdicts = serve(directory, given.seed, Path(place))
        show(f"{directory.variant}: real servers", verdicts)
        found += verdicts
    seconds, bad = time.monotonic() - started, len(violations_of(found))
    print(f"\n{len(found):,} cases in {seconds:.0f} s, {bad:,} violations, seed {given.seed}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
