"""Runs the code blocks of a page at a terminal, and compares what they print with what it shows."""

import doctest
from collections.abc import Iterable
from pathlib import Path

from tests.integration.docs.markdown import Block, blocks
from tests.integration.docs.terminal import Terminal

RUNNABLE = ("sh", "python", "toml")


def to_be_run(page: Path) -> list[Block]:
    """Those that a page does not leave out."""
    runnable = [block for block in blocks(page) if block.language in RUNNABLE]
    return [block for block in runnable if "no-test" not in block.marks]


def read(terminal: Terminal, page: Path, shown: Iterable[Block]) -> None:
    """Run blocks in their order; each has to print what the page shows."""
    for block in shown:
        printed = run(terminal, block)
        if block.output is not None:
            assert matches(block.output, printed), (
                f"{page}:{block.line} shows\n{block.output}\nbut printed\n{printed}"
            )


def run(terminal: Terminal, block: Block) -> str:
    """Do what a block says; answers what it prints."""
    for mark in block.marks:
        if mark.startswith("file="):
            file = terminal.home / mark.removeprefix("file=")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
            return ""
    if "server" in block.marks:
        return terminal.start_server(block.text)
    if "stopped" in block.marks:
        terminal.stop_server()
    return terminal.python(block.text) if block.language == "python" else terminal.shell(block.text)


def matches(shown: str, printed: str) -> bool:
    """Whether a block prints what is shown; `...` stands for anything."""
    return doctest.OutputChecker().check_output(words(shown), words(printed), doctest.ELLIPSIS)


def words(text: str) -> str:
    """The lines with one space between words: how wide a column is depends on what is in it."""
    return "".join(f"{' '.join(line.split())}\n" for line in text.splitlines())
