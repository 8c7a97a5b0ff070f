"""Rounds against the naive model: `python -m tests.torture.rounds --seed 1`.

In process: random rounds of acquire, release, allocate, trim, free, kill and restart, then sliding
windows until so many tables were trimmed. Over the wire: the same in smaller counts, with a server
that is killed. The exit code is 1 when pool and model differed or a block leaked; what replays the
round is printed.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests import preloaded
from tests.torture.rounds.in_process import InProcess
from tests.torture.rounds.over_wire import OverWire
from tests.torture.rounds.play import Failure, Player
from tests.torture.rounds.windows import SEQUENCES_MAX, slide

ROUNDS, TRIMS, WIRE_ROUNDS, WIRE_TRIMS = 100_000, 100_000, 2_000, 500


class Sizes(NamedTuple):
    """How many of each; the names are those of the flags."""

    rounds: int = 0
    trims: int = 0
    wire_rounds: int = 0
    wire_trims: int = 0


def play(seed: int, what: str, count: int) -> "Counter[str]":
    """Play one of Sizes, so many of it; answers what has happened, raises Failure."""
    random = Random(f"{seed}/{what}")
    if what in ("rounds", "trims"):
        subject = InProcess(random) if what == "rounds" else InProcess(random, SEQUENCES_MAX)
        player = Player(subject, random)
        player.rounds(count) if what == "rounds" else slide(player, count)
        return subject.counts
    with tempfile.TemporaryDirectory(prefix="kvblock-rounds-") as directory:
        state_dir = Path(directory) / "state"
        is_rounds = what == "wire_rounds"
        arguments = () if is_rounds else (SEQUENCES_MAX,)
        with OverWire(random, state_dir, *arguments) as server:
            player = Player(server, random)
            player.rounds(count) if is_rounds else slide(player, count)
            return server.counts


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.rounds", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--trims", type=int, default=TRIMS, metavar="N")
    parser.add_argument("--wire-rounds", type=int, default=WIRE_ROUNDS, metavar="N")
    parser.add_argument("--wire-trims", type=int, default=WIRE_TRIMS, metavar="N")
    given = parser.parse_args()
    sizes = Sizes(given.rounds, given.trims, given.wire_rounds, given.wire_trims)
    print(f"seed {given.seed}", flush=True)
    preloaded.install()
    for what, count in sizes._asdict().items():
        if not count:
            continue
        started = time.monotonic()
        try:
            counts = play(given.seed, what, count)
        except Failure as failure:
            print(f"FAILED in {flag(what)}: {failure}")
            print(f"replay: python -m tests.torture.rounds {replay(given.seed, what, failure)}")
            return 1
        print(f"{flag(what)} {count:,}: nothing leaked, {time.monotonic() - started:.1f} s")
        for name, number in sorted(counts.items()):
            print(f"  {name:<32} {number:>10,}", flush=True)
    return 0


def flag(what: str) -> str:
    """How the command line names one of Sizes."""
    return f"--{what.replace('_', '-')}"


def replay(seed: int, what: str, failure: Failure) -> str:
    """Arguments that end with the round that failed, and leave the others out."""
    counts = Sizes()._replace(**{what: failure.count})
    flags = " ".join(f"{flag(name)} {count}" for name, count in counts._asdict().items())
    return f"--seed {seed} {flags}"


if __name__ == "__main__":
    sys.exit(main())
