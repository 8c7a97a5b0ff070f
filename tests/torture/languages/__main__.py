"""Run sample engines of several languages on one pool, and look for overwritten stamps.

The exit code is 0 when nothing was found, 1 when something was, 2 when a language is missing.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.torture.languages.crew import COUNTS, LANGUAGES, LanguageMissing, command_of
from tests.torture.languages.stomp import Report, Stomp


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.languages", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--languages", default=",".join(LANGUAGES), help="some, with commas")
    parser.add_argument("--plant", choices=("no-epoch-check",), help="a bug of the server to find")
    parser.add_argument("--keep", type=Path, help="a directory for the files of the run")
    given = parser.parse_args()
    try:
        commands = {one: command_of(one) for one in given.languages.split(",")}
    except LanguageMissing as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    directory = given.keep or Path(tempfile.mkdtemp(prefix="kvblock-"))
    directory.mkdir(parents=True, exist_ok=True)
    stomp = Stomp(directory, commands, given.seed, given.plant or "none", progress)
    report = stomp.run(60.0 * given.minutes)
    show(report)
    for violation in report.violations:
        print(violation)
    print(f"{len(report.violations)} violations with seed {given.seed}")
    if report.violations:
        print(f"files: {directory}")
    elif not given.keep:
        shutil.rmtree(directory)
    return int(bool(report.violations))


def progress(text: str) -> None:
    """Show how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)


def show(report: Report) -> None:
    """What was done, by language."""
    print(", ".join(f"{what}: {count}" for what, count in sorted(report.happened.items())))
    print("".join(f"{name:>13}" for name in ("language", "lives", *COUNTS)))
    for engine in report.engines:
        row = (engine.language, engine.lives, *(engine.counts[name] for name in COUNTS))
        print("".join(f"{value:>13}" for value in row))


if __name__ == "__main__":
    sys.exit(main())
