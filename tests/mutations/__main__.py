"""Plants small bugs, one at a time, and runs what has to catch them: `python -m tests.mutations`.

Rules:
- The bugs are data, in `catalogue/*.yaml`; see `tests/mutations/catalogue.py`.
- They are put into a copy of the sources with an environment of its own: the sources stay as they
  are, and what the tests start runs the copy.
- Before that, the tests have to pass on the copy as it is, unless `--trust` says that they do.
- A bug is caught when the tests fail, or when they hang; one that keeps them from running at all is
  no bug of the kind that is looked for, and is told as broken.
- The exit code is 0 when all bugs were caught, else 1. A text that is not there exactly once is
  told before anything runs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.mutations.catalogue import Mutation, load, unfit

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0
"""Seconds after which tests are taken to hang."""
_FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_CODES = {0: "survived", 1: "caught"}


class Verdict(NamedTuple):
    """What became of a mutation: `caught`, `survived` or `broken`, and by which test or why."""

    kind: str
    by: str


def main() -> int:
    """Answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutations, or beginnings of their names")
    parser.add_argument("--list", action="store_true", help="show them, and run nothing")
    parser.add_argument("--trust", action="store_true", help="do not run the tests without one")
    given = parser.parse_args()
    mutations = [
        one for one in load() if not given.names or one.name.startswith(tuple(given.names))
    ]
    problems = [problem for one in mutations for problem in unfit(one, ROOT)]
    if problems or not mutations:
        print("\n".join(problems) or "there is no such mutation", file=sys.stderr)
        return 1
    if given.list:
        for one in mutations:
            print(f"{one.name:<40} {one.file}\n    {' '.join(one.tests)}")
        return 0
    with tempfile.TemporaryDirectory(prefix="kvblock-mutations-") as directory:
        copy = copied(Path(directory) / "copy")
        return int(not (given.trust or passes(mutations, copy))) or plant_all(mutations, copy)


def passes(mutations: list[Mutation], copy: Path) -> bool:
    """Whether the tests of all of them pass without any."""
    tests = list(dict.fromkeys(test for one in mutations for test in one.tests))
    without = run(copy, tests, patience=None)
    if without.kind != "survived":
        print(f"without a mutation: {without.kind}, {without.by}")
    return without.kind == "survived"


def plant_all(mutations: list[Mutation], copy: Path) -> int:
    """Plant one after the other in a copy of the sources; answers the exit code."""
    kinds = []
    for one in mutations:
        started = time.monotonic()
        verdict = planted(one, copy)
        kinds.append(verdict.kind)
        seconds = time.monotonic() - started
        print(f"{verdict.kind:<9} {one.name:<44} {seconds:5.1f} s  {verdict.by}", flush=True)
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)))
    return int(set(kinds) != {"caught"})


def planted(mutation: Mutation, copy: Path) -> Verdict:
    """Plant it, run its tests, and take it out again."""
    path = copy / mutation.file
    before = path.read_text()
    path.write_text(before.replace(mutation.text, mutation.becomes))
    try:
        return run(copy, mutation.tests)
    finally:
        path.write_text(before)


def run(copy: Path, tests: list[str], patience: float | None = PATIENCE) -> Verdict:
    """Run tests of a copy, up to the first that fails."""
    command = [str(copy / ".venv/bin/python"), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # Two versions of a file may have one size and one second: nothing compiled is to be reused.
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        done = subprocess.run(
            [*command, *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return Verdict("caught", "the tests hang")
    failed = _FIRST_FAILURE.search(done.stdout)
    kind = _CODES.get(done.returncode, "broken")
    if kind == "broken":
        return Verdict(kind, (done.stdout + done.stderr).strip()[-2000:])
    return Verdict(kind, failed[1] if failed else "")


def copied(copy: Path) -> Path:
    """A copy of the sources, with an environment in which kvblock is what is in the copy."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy / ".venv"], check=True)
    (packages,) = (copy / ".venv/lib").glob("python*/site-packages")
    # The .pth file that leads to the original counts in its own directory only.
    paths = [copy / "clients/python", copy / "service", *_site_packages()]
    (packages / "copy.pth").write_text("".join(f"{path}\n" for path in paths))
    ours, theirs = Path(sys.executable).parent, copy / ".venv/bin"
    for program in ours.iterdir():
        if program.name == "kvblock":
            text = program.read_text().replace(str(ours), str(theirs))
            (theirs / program.name).write_text(text)
            (theirs / program.name).chmod(0o755)
        elif not (theirs / program.name).exists():
            (theirs / program.name).symlink_to(program)
    return copy


def _site_packages() -> list[Path]:
    return [Path(path) for path in sys.path if Path(path).name == "site-packages"]


if __name__ == "__main__":
    sys.exit(main())
