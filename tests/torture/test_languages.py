"""The run of sample engines, with the one that is always here."""

from pathlib import Path

from tests.torture.languages.crew import command_of
from tests.torture.languages.stomp import Report, Stomp

SECONDS = 6.0


def run(directory: Path, plant: str) -> Report:
    commands = {"python": command_of("python")}
    return Stomp(directory, commands, 1, plant, lambda _: None).run(SECONDS)


def test_a_run_finds_nothing(tmp_path: Path) -> None:
    report = run(tmp_path, "none")
    assert report.violations == []
    assert report.happened["server killed"] == 2
    (engine,) = report.engines
    assert engine.counts["checked"] > 0


def test_a_run_finds_a_planted_bug(tmp_path: Path) -> None:
    assert run(tmp_path, "no-epoch-check").violations
