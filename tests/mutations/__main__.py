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
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.mutations.catalogue import Mutation, load, unfit
from tests.mutations.runner import Runner, Verdict

ROOT = Path(__file__).parents[2]


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
        with Runner(copy) as runner:
            trusted = given.trust or passes(mutations, runner)
            return plant_all(mutations, runner) if trusted else 1


def passes(mutations: list[Mutation], runner: Runner) -> bool:
    """Whether the tests of all of them pass without any."""
    tests = list(dict.fromkeys(test for one in mutations for test in one.tests))
    without = runner.run(tests, patience=0)
    if without.kind != "survived":
        print(f"without a mutation: {without.kind}, {without.by}")
    return without.kind == "survived"


def plant_all(mutations: list[Mutation], runner: Runner) -> int:
    """Plant one after the other in a copy of the sources; answers the exit code."""
    kinds = []
    for number, one in enumerate(mutations, start=1):
        started = time.monotonic()
        verdict = planted(one, runner, number)
        kinds.append(verdict.kind)
        seconds = time.monotonic() - started
        print(f"{verdict.kind:<9} {one.name:<50} {seconds:6.1f} s  {verdict.by}", flush=True)
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)))
    return int(set(kinds) != {"caught"})


def planted(mutation: Mutation, runner: Runner, number: int) -> Verdict:
    """Plant it, run its tests, and take it out again."""
    path = runner.copy / mutation.file
    before = path.read_text()
    write(path, before.replace(mutation.text, mutation.becomes), 2 * number)
    try:
        return runner.run(mutation.tests)
    finally:
        write(path, before, 2 * number + 1)


def write(path: Path, text: str, number: int) -> None:
    """Write a source, which nothing that was compiled before belongs to."""
    path.write_text(text)
    os.utime(path, (number, number))


def copied(copy: Path) -> Path:
    """A copy of the sources, with an environment in which kvblock is what is in the copy."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    # What is compiled of a source goes with it, as its time and size do.
    for compiled in ROOT.rglob("__pycache__"):
        there = copy / compiled.relative_to(ROOT)
        if ".venv" not in compiled.parts and there.parent.is_dir():
            shutil.copytree(compiled, there)
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
