"""The pages for engines in other languages do what they say, in an empty project of the language.

`make test-LANGUAGE` runs that of its language; the conventions are those of
tests/integration/docs/test_blocks.py, and a file may be of any language.
"""

from pathlib import Path

import pytest

from tests.conformance.client_driving import ASKED, CHECKOUT, OTHERS, why_missing
from tests.integration.docs.markdown import Block, blocks
from tests.integration.docs.running import read
from tests.integration.docs.terminal import Terminal

BUILD_SECONDS = 900.0
"""How long a block may take that builds a project and what it depends on."""
LINES_MAX = 120
MARKS = {"no-test", "server", "stopped"}


def page_of(language: str) -> Path:
    return CHECKOUT / "docs" / "engines" / f"{language}.md"


def is_run(block: Block) -> bool:
    is_file = any(mark.startswith("file=") for mark in block.marks)
    return "no-test" not in block.marks and (is_file or block.language in ("sh", "python"))


@pytest.mark.parametrize("language", [one for one in OTHERS if one in ASKED])
def test_page_works_as_written_in_an_empty_project(language: str, tmp_path: Path) -> None:
    assert why_missing(language) is None
    page = page_of(language)
    shown = [block for block in blocks(page) if is_run(block)]
    assert any(block.output is not None for block in shown), f"{page} shows nothing printed"
    variables = {"CHECKOUT": str(CHECKOUT)}
    with Terminal(tmp_path, timeout=BUILD_SECONDS, **variables) as terminal:
        read(terminal, page, shown)


@pytest.mark.parametrize(
    "page", sorted((CHECKOUT / "docs" / "engines").glob("*.md")), ids=lambda page: page.stem
)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= LINES_MAX
    for block in blocks(page):
        marks = {mark for mark in block.marks if not mark.startswith("file=")}
        assert marks <= MARKS, f"{page}:{block.line}: {marks}"
        assert is_run(block) or block.language == "text" or "no-test" in marks, (
            f"{page}:{block.line} is neither run nor marked no-test"
        )
