"""The mutations, as data: small bugs that somebody could write, each with the tests that catch it.

A file in `catalogue/` has those of one part of kvblock:

    name       says what is wrong then; unique
    file       the source, from the root of the repository
    text       what is replaced; it has to be in the file exactly once
    becomes    what it is replaced with
    tests      files of tests, or single ones, one of which has to fail
"""

from pathlib import Path
from typing import NamedTuple

import yaml


class Mutation(NamedTuple):
    """One of them; `name` has the part in front."""

    name: str
    file: str
    text: str
    becomes: str
    tests: list[str]


def load() -> list[Mutation]:
    """All of them, part by part."""
    return [
        Mutation(f"{path.stem}/{row.pop('name')}", **row)
        for path in sorted(Path(__file__).with_name("catalogue").glob("*.yaml"))
        for row in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def unfit(mutation: Mutation, root: Path) -> list[str]:
    """Why a mutation cannot be planted in the sources as they are."""
    name, file, text, becomes, tests = mutation
    problems = [
        f"{name}: there is no {test}"
        for test in tests
        if not (root / test.partition("::")[0]).exists()
    ]
    if not (root / file).is_file():
        return [*problems, f"{name}: there is no {file}"]
    times = (root / file).read_text(encoding="utf-8").count(text)
    if times != 1:
        problems.append(f"{name}: {file} has its text {times} times, not once")
    if text == becomes:
        problems.append(f"{name}: nothing is replaced")
    return problems
