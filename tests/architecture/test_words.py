"""The project's words: what has a plain word in the field is called by it, everywhere."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("service", "clients/python", "benchmarks", "protos", "docs", "deploy", "scripts")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docker-compose.yml", "Makefile")

RETIRED = {
    r"\bknows? nothing\b": "must not depend on",
    r"\b(who|whoever|those who) waits?\b": "pending callers",
    r"\b(is|are|was|were|be|been) told\b": "fails with, gets, is refused with",
    r"\bstands? (at|twice)\b": "is a duplicate of",
    r"\b(is|are|was) over\b": "has expired, is stale, has ended",
    r"turned[ _.-]away|TurnedAway": "rejected",
    r"\bkeepers?\b|\bKeeper\b|\bkeeping\b|\bKeeping\b": "maintenance, persistence",
    r"\bis_kept\b": "is_persisted",
    r"\bbeliefs?\b|\bbelieves?\b": "what an engine has in its tables",
    r"\b(is|was|being|be|were) heard of\b": "heartbeat",
    r"\bclass (Applied|Caller|Holder|Settings|Memory|Fact|Taken|Tally|Ledger|Stage)\b": "its kind",
    r"\bis no more\b|\bcomes anew\b": "ended, comes again",
}
"""What is not said any more, and what is said instead."""


def lines() -> list[tuple[str, str]]:
    command = ["git", "ls-files", "--", *PLACES, *PAGES]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [one for one in found.split() if not re.search(r"_pb2|\.(svg|png|json|gz|pyi)$", one)]
    return [
        (f"{name}:{number}", line)
        for name in names
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
    ]


LINES = lines()


@pytest.mark.parametrize("retired", RETIRED, ids=str)
def test_a_retired_word_is_used_nowhere(retired: str) -> None:
    found = [where for where, line in LINES if re.search(retired, line)]
    assert not found, f"say {RETIRED[retired]!r} instead"
