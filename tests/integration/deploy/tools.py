"""Programs that the tests of deploy/ run where they are there, and what deploy/ holds."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.processes import ROOT

DEPLOY = ROOT / "deploy"
KVBLOCK = Path(sys.executable).with_name("kvblock")


def program(name: str) -> Path | None:
    """Where a program is: in .venv/bin, where scripts put it, or wherever else it is installed."""
    own = Path(sys.executable).parent
    found = shutil.which(name, path=f"{own}{os.pathsep}{os.environ.get('PATH', '')}")
    return Path(found) if found else None


def needed(name: str, without: str) -> Path:
    """Where a program is; skips the test where it is missing. `without`: what is then not seen."""
    found = program(name)
    if found is None:
        pytest.skip(f"no {name} here, so {without}")
    return found
