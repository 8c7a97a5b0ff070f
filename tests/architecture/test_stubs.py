"""The committed stubs are what protos/ gives now, and nothing else."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_stubs_are_fresh() -> None:
    found = subprocess.run(
        [ROOT / "scripts/check_stubs.sh"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
