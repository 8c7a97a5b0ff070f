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

ENGINES = 8


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to find")
    parser.add_argument("--engines", type=int, default=ENGINES)
    parser.add_argument("--durability", choices=("process", "host"), default="process")
    parser.add_argument("--keep", type=Path, help="a directory for the files of the run")
    given = parser.parse_args()
    directory = given.keep or Path(tempfile.mkdtemp(prefix="kvblock-torture-"))
    directory.mkdir(parents=True, exist_ok=True)
    setting = setting_of(
        given.seed,
        60.0 * given.minutes,
        directory,
        plant=given.plant,
        durability=given.durability,
        engines=given.engines,
    )
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


def setting_of(
    seed: int,
    seconds: float,
    directory: Path,
    *,
    plant: str | None,
    durability: str,
    engines: int = ENGINES,
) -> Setting:
    """The usual sizes and times, or those that a plant needs."""
    setting = Setting(
        seed=seed,
        seconds=seconds,
        engines=engines,
        blocks=1024,
        ttl=5.0,
        quarantine=5.8,
        late=0.3,
        late_share=0.04,
        pace=0.01,
        plant=plant or "none",
        durability=durability,
        directory=str(directory),
    )
    return setting._replace(**PLANTS[plant]) if plant else setting


def show(report: Report, shown_max: int = 5) -> None:
    """Print the counts, and the first violations of each kind."""
    print()
    for name, count in sorted(Counter(report.counts).items()):
        print(f"  {name:<42} {count:>10,}")
    print()
    kinds = report.by_kind()
    for kind, violations in kinds.items():
        print(f"  {kind:<42} {len(violations):>10,}")
    for missing in report.missing:
        print(f"  not done: {missing}")
    for violations in kinds.values():
        for violation in violations[:shown_max]:
            print(f"VIOLATION: {violation}")


if __name__ == "__main__":
    sys.exit(main())
