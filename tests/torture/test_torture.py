"""The torture in short, and the proof that it finds what it is there to find."""

from pathlib import Path

import pytest

from tests.torture.__main__ import setting_of
from tests.torture.torture import Report, torture

SECONDS = 15.0
STAMPED_OVER = ("double", "stamps overwritten")


def tortured(
    seed: int, directory: Path, plant: str | None = None, seconds: float = SECONDS
) -> Report:
    setting = setting_of(seed, seconds, directory, plant=plant, durability="process")
    return torture(setting)


def test_nothing_is_lost_double_or_overwritten(tmp_path: Path) -> None:
    report = tortured(1, tmp_path)
    assert report.violations == [], "python -m tests.torture --seed 1 --minutes 0.25"
    for count in (
        "server kills",
        "engine kills",
        "stops past the TTL",
        "connections cut",
        "late calls refused",
    ):
        assert report.counts[count] >= 1, report.counts
    assert report.counts["acknowledged grants"] > 100, report.counts


@pytest.mark.parametrize(
    ("plant", "kinds", "seconds"),
    [
        ("early-answer", ("lost",), SECONDS),
        pytest.param("issued-reserved", ("reserved",), SECONDS, marks=pytest.mark.plants),
        pytest.param("freed-twice", STAMPED_OVER, SECONDS, marks=pytest.mark.plants),
        pytest.param("released-twice", STAMPED_OVER, SECONDS, marks=pytest.mark.plants),
        pytest.param("stash-forgotten", ("counts",), 2 * SECONDS, marks=pytest.mark.plants),
        pytest.param("no-epoch-check", STAMPED_OVER, SECONDS, marks=pytest.mark.plants),
        pytest.param("no-quarantine", STAMPED_OVER, 4 * SECONDS, marks=pytest.mark.plants),
    ],
)
def test_a_planted_bug_is_found(
    plant: str, kinds: tuple[str, ...], seconds: float, tmp_path: Path
) -> None:
    found = tortured(1, tmp_path, plant, seconds).by_kind()
    assert any(found[kind] for kind in kinds), found
