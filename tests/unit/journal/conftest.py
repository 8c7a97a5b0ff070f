"""Fixtures of the journal's tests."""

from pathlib import Path

import pytest

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
