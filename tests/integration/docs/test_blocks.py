"""The code blocks of every page do what it says, in the order in which a reader meets them.

Each page is read on its own, from an empty directory. The info string of a block says how: `sh` and
`python` run, `sh server` starts a server that the following blocks use, `sh stopped` runs when that
server has ended, `toml file=NAME` is written to a file, and `no-test` is for what needs another
language's tools, the network or the repository itself. A `text` block right behind a block is what
it prints; `...` in it stands for anything.
"""

from pathlib import Path

import pytest

from tests.integration.docs.markdown import DOCUMENTS, ROOT, blocks
from tests.integration.docs.running import RUNNABLE, matches, read, to_be_run
from tests.integration.docs.terminal import Terminal

NOT_TESTED_MAX = 8
TESTED_ELSEWHERE = {"docs/json.md": "json", "docs/deploy.md": "yaml"}
MARKS = {"no-test", "server", "stopped"}
LANGUAGES = ROOT / "docs" / "engines"
"""Pages for engines in other languages, which tests/languages reads."""
PAGES = [page for page in DOCUMENTS if page.parent != LANGUAGES]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if to_be_run(page)], ids=name)
def test_blocks_run_and_print_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        read(terminal, page, to_be_run(page))


def test_few_blocks_are_left_out() -> None:
    left_out = [
        (name(page), block.line)
        for page in PAGES
        for block in blocks(page)
        if "no-test" in block.marks
    ]
    assert len(left_out) <= NOT_TESTED_MAX, left_out


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    elsewhere = TESTED_ELSEWHERE.get(name(page))
    for block in blocks(page):
        if block.language != elsewhere:
            marks = {mark for mark in block.marks if not mark.startswith("file=")}
            assert block.language in (*RUNNABLE, "text"), f"{page}:{block.line}"
            assert marks <= MARKS, f"{page}:{block.line}: {marks}"


def test_output_is_compared() -> None:
    assert matches("a ... c\nlast\n", "a b c  \nlast\n")
    assert not matches("a ... c\n", "a b d\n")
    assert not matches("a\n", "a\nb\n")
