#!/usr/bin/env python3
"""Writes the synchronous client from the asyncio one: kvblock/_sync from kvblock/_async.

    gen_sync.py [--check] [PACKAGE]

PACKAGE is the directory of the package `kvblock`. With --check nothing is written: the exit code is
1 when a file of `_sync` is not what it would be written as.

Rules:
- A module of `_async` is generated unless HAND_WRITTEN names it; what differs between asyncio and
  threads in more than words stands in those, for each side.
- Substitutions are made in the order given, in code and docstrings alike. ruff then sorts and drops
  imports, joins loops that only yield, and formats.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HAND_WRITTEN = {"__init__", "cancelling", "connection", "event", "stream", "worker"}
HEADER = "# Generated from kvblock/_async/{name} by scripts/gen_sync.py: change that one.\n"
SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Words of the docstrings.
        (r"\b([Aa])n asyncio\b", r"\1 synchronous"),
        (r"\basyncio (client|session)\b", r"synchronous \1"),
        (r"\ba cancelled task\b", "Ctrl-C"),
        (r"\bin the event loop\b", "in the renewal's thread"),
        # The standard library and gRPC.
        (r"await asyncio\.to_thread\(([\w.]+), ", r"\1("),
        (r"\b__a(enter|exit)__\b", r"__\1__"),
        (r"\bfrom grpc import aio\b", "import grpc"),
        (r"\baio\.", "grpc."),
        (r"AsyncStub\b", "Stub"),
        # Names and keywords.
        (r"\b_async\b", "_sync"),
        (r"\bAsync(?=[A-Z])", ""),
        (r"\b(async|await) ", ""),
    )
]


def main() -> int:
    """Generate or check; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when not fresh")
    parser.add_argument(
        "package", type=Path, nargs="?", default=ROOT / "clients/python/kvblock", metavar="PACKAGE"
    )
    given = parser.parse_args()
    generated = generate(given.package / "_async")
    target = given.package / "_sync"
    there = {
        path.name: path.read_text() for path in target.glob("*.py") if path.stem not in HAND_WRITTEN
    }
    if not given.check:
        for name in there.keys() - generated.keys():
            (target / name).unlink()
        for name, text in generated.items():
            (target / name).write_text(text)
        return 0
    stale = [
        name
        for name in sorted(there.keys() | generated.keys())
        if there.get(name) != generated.get(name)
    ]
    for name in stale:
        sys.stderr.write(f"gen_sync: {target / name} is not fresh; run: make gen\n")
    return 1 if stale else 0


def generate(source: Path) -> dict[str, str]:
    """The synchronous texts of the modules in a directory, by file name."""
    with tempfile.TemporaryDirectory() as directory:
        written = []
        for path in sorted(source.glob("*.py")):
            if path.stem not in HAND_WRITTEN:
                text = path.read_text()
                for pattern, replacement in SUBSTITUTIONS:
                    text = pattern.sub(replacement, text)
                written.append(Path(directory, path.name))
                written[-1].write_text(text)
        ruff("check", "--fix", "--unsafe-fixes", "--select=F401,I,UP028", directory)
        ruff("format", directory)
        return {path.name: HEADER.format(name=path.name) + path.read_text() for path in written}


def ruff(*command: str) -> None:
    """Run ruff by the settings of this repository."""
    tool = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [tool, *command, "--quiet", "--no-cache", "--config=pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"gen_sync: ruff {command[0]} failed: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    raise SystemExit(main())
