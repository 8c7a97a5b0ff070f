"""The committed files that are generated are what their sources give now, and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients/python/kvblock"
GENERATE = [sys.executable, str(ROOT / "scripts/gen_sync.py")]


def run(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_stubs_are_fresh() -> None:
    code, said = run(str(ROOT / "scripts/check_stubs.sh"))
    assert code == 0, said


def test_the_synchronous_client_is_fresh() -> None:
    assert run(*GENERATE, "--check") == (0, "")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of both sides of the client."""
    for side in ("_async", "_sync"):
        shutil.copytree(PACKAGE / side, tmp_path / side)
    return tmp_path


@pytest.mark.parametrize("what", ["source", "generated", "missing", "left over"])
def test_a_synchronous_client_that_is_not_fresh_is_found(package: Path, what: str) -> None:
    generated = package / "_sync/session.py"
    if what == "source":
        source = package / "_async/session.py"
        source.write_text(source.read_text() + "\nANOTHER = 1\n")
    elif what == "generated":
        generated.write_text(generated.read_text().replace("Open the session", "Begin the session"))
    elif what == "missing":
        generated.unlink()
    else:
        generated = generated.with_name("old.py")
        generated.write_text('"""Nothing gives this any more."""\n')
    assert run(*GENERATE, "--check", str(package)) == (
        1,
        f"gen_sync: {generated} is not fresh; run: make gen\n",
    )
    assert run(*GENERATE, str(package)) == (0, "")
    assert run(*GENERATE, "--check", str(package)) == (0, "")


def test_the_synchronous_client_says_what_it_is_generated_from() -> None:
    written_by_hand = {"__init__.py", "connection.py", "event.py", "stream.py", "worker.py"}
    for path in (PACKAGE / "_sync").glob("*.py"):
        first = path.read_text().partition("\n")[0]
        generated = f"# Generated from kvblock/_async/{path.name} by scripts/gen_sync.py: "
        assert first.startswith(generated) == (path.name not in written_by_hand), path
