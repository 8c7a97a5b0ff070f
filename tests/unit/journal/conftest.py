"""Fixtures of the journal's tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvblock_service.journal.compaction import Compactor
from tests.unit.journal.compacting import Make, Server
from tests.unit.journal.directories import HELD, closed, grant, opened, snap


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory with two segments, a snapshot between them, and 6 held blocks."""
    path = tmp_path / "state"
    for number in range(0, HELD, 3):
        found = opened(path)
        for sequence in range(number, number + 3):
            grant(found, sequence)
        if not number:
            snap(found)
        closed(found)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes compactors whose helpers end with the test."""
    made = []

    def one(*arguments: Any, **named: Any) -> Compactor:
        made.append(Compactor(*arguments, **named))
        return made[-1]

    yield one
    for compactor in made:
        compactor.stop()
