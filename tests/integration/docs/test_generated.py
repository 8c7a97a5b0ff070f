"""The generated pages are what their scripts give now."""

import sys
from pathlib import Path

import pytest

from tests.integration.docs.markdown import ROOT
from tests.integration.processes import run


@pytest.mark.parametrize(("page", "script"), [("api", "gen_api_docs"), ("cli", "gen_cli_docs")])
def test_page_is_fresh(page: str, script: str, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.md"
    run(sys.executable, ROOT / f"scripts/{script}.py", fresh)
    assert fresh.read_text() == (ROOT / f"docs/{page}.md").read_text(), "run: make gen"
