"""Floods of a stranger, and an engine that has to live through them.

`python -m tests.torture.floods` tries each flood against a server with an access file, and against
a bare grpc.aio server for comparison. It exits with 1 when an engine lost its lease or a call, or
when the server took more memory than it may. Frames that belong to no call are gRPC's alone: with
the poller that `kvblock serve` uses, one thread reads for all connections, and what such a flood
does there is told and is no failure. With `--poller event-engine` it is one.
"""

import argparse
import sys
from random import SystemRandom
from statistics import quantiles

from tests.torture.floods.servers import POLLERS, bare_server, kvblock_server
from tests.torture.floods.shapes import FLOODS, OF_NO_CALL
from tests.torture.floods.trial import Outcome, problems_of, run


def main() -> int:
    """Run what the command line asks for; 1 when something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.floods", description=__doc__)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    parser.add_argument("--seconds", type=float, default=15.0, help="how long each flood lasts")
    parser.add_argument("--size", type=float, default=1.0, help="a part of each flood")
    parser.add_argument("--only", action="append", choices=sorted(FLOODS), help="these floods")
    parser.add_argument("--no-bare", action="store_true", help="leave the bare server out")
    parser.add_argument("--poller", choices=sorted(POLLERS), default="own")
    given = parser.parse_args()
    print(f"seed {given.seed}, poller {given.poller}")
    columns = f"{'P99':>9} {'MAX':>9} {'MEMORY':>8}"
    print(f"{'':<28} {'KVBLOCK':<38}   BARE GRPC.AIO SERVER")
    print(f"{'FLOOD':<22} {'LEASE':<5} {'STEP P50':>9} {columns}   {columns}")
    problems: list[str] = []
    in_grpc: list[str] = []
    for name in given.only or FLOODS:
        with kvblock_server(given.poller) as prey:
            outcome = run(name, prey, given.seconds, given.size, given.seed)
        found = [f"{name}: {problem}" for problem in problems_of(outcome)]
        if name in OF_NO_CALL and given.poller == "own":
            in_grpc += found
        else:
            problems += found
        kept = "kept" if outcome.seen.kept_lease else "LOST"
        print(f"{name:<22} {kept:<5} {times(outcome, 50)}", end="", flush=True)
        if not given.no_bare:
            with bare_server(given.poller) as prey:
                print(f"   {times(run(name, prey, given.seconds, given.size, given.seed))}", end="")
        print(flush=True)
    for problem in in_grpc:
        print(f"in gRPC's poller, see docs/adr/0013: {problem}")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return int(bool(problems))


def times(outcome: Outcome, *more: int) -> str:
    """Percentiles of the steps in milliseconds, the longest, and the memory."""
    steps = outcome.seen.steps
    percentiles = quantiles(steps, n=100) if len(steps) > 1 else [float("nan")] * 99
    shown = [percentiles[number - 1] for number in (*more, 99)] + [max(steps, default=float("nan"))]
    return " ".join(f"{1000 * value:7.1f}ms" for value in shown) + f" {outcome.memory:6.0f}MB"


if __name__ == "__main__":
    sys.exit(main())
