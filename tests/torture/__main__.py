"""The torture: `python -m tests.torture --seed 1 --minutes 10`.

Rules:
- The seed decides what the nemesis does and when, and what each engine tries; how processes are
  scheduled it does not decide. A failure prints it, and keeps all files of the run.
- The exit code is 0 when nothing was found, else 1. With --plant something has to be found.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.torture.setting import Setting
from tests.torture.torture import PLANTS, Report, torture

DEFAULT = {"engines": 8, "blocks": 512, "ttl": 2.0, "late": 0.3, "quarantine": 2.8, "pace": 0.01}


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to find")
    parser.add_argument("--engines", type=int, default=DEFAULT["engines"])
    parser.add_argument("--durability", choices=("process", "host"), default="process")
    parser.add_argument("--keep", type=Path, help="a directory for the files of the run")
    given = parser.parse_args()
    directory = given.keep or Path(tempfile.mkdtemp(prefix="kvblock-torture-"))
    directory.mkdir(parents=True, exist_ok=True)
    setting = Setting(
        seed=given.seed,
        seconds=60.0 * given.minutes,
        engines=given.engines,
        blocks=int(DEFAULT["blocks"]),
        ttl=DEFAULT["ttl"],
        quarantine=DEFAULT["quarantine"],
        late=DEFAULT["late"],
        late_share=0.04,
        pace=DEFAULT["pace"],
        plant=given.plant or "none",
        durability=given.durability,
        directory=str(directory),
    )
    if given.plant:
        setting = setting._replace(**PLANTS[given.plant])
    report = torture(setting)
    show(report)
    again = f"--seed {given.seed} --minutes {given.minutes:g}"
    again += f" --durability {given.durability}"
    again += f" --plant {given.plant}" if given.plant else ""
    if report.violations:
        print(f"{len(report.violations)} violations with seed {given.seed}; files: {directory}")
        print(f"replay: python -m tests.torture {again}")
    else:
        print(f"no violation with seed {given.seed}: python -m tests.torture {again}")
        if not given.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return int(bool(report.violations))


def show(report: Report, shown_max: int = 20) -> None:
    """Print the counts and the first violations."""
    print()
    for name, count in sorted(Counter(report.counts).items()):
        print(f"  {name:<42} {count:>10,}")
    print()
    for name, count in report.verdicts().items():
        print(f"  {name:<42} {count:>10,}")
    for missing in report.missing:
        print(f"  not done: {missing}")
    for violation in report.violations[:shown_max]:
        print(f"VIOLATION: {violation}")


if __name__ == "__main__":
    sys.exit(main())
