"""What the documents name is there: files, links, RPCs, flags, settings, reasons, targets."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from kvblock_cli import failures
from kvblock_cli.app import make_app
from kvblock_service.config import ServerSettings
from kvblock_service.errors import ERRORS
from tests.integration.docs.markdown import (
    DOCUMENTS,
    ROOT,
    blocks,
    headings,
    links,
    spans,
    tables,
)
from tests.integration.processes import run

SOURCES = (
    *("README.md", ".ci/", "clients/", "deploy/", "docs/", "protos/", "scripts/", "service/"),
    "tests/",
)
SEPARATORS = {"|", "||", "&&", ";", "&", "(", ")"}
REPRODUCES = re.compile(r"`(make run|make bench|kvblock replay|\.venv/bin/python tests/)")

each_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for line, target in links(document):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            there = document.parent / name if name else document
            assert there.exists(), f"{document}:{line} links to {target}"
            assert not anchor or anchor in anchors(there), f"{document}:{line} links to {target}"


@each_document
def test_paths_exist(document: Path) -> None:
    for line, text in spans(document):
        if text.startswith(SOURCES) and " " not in text:
            assert (ROOT / text).exists(), f"{document}:{line} names {text}"


@each_document
def test_scripts_that_are_run_exist(document: Path) -> None:
    for line, command in commands(document):
        for word in command[1:]:
            if word.startswith(SOURCES) and "*" not in word:
                assert (ROOT / word).exists(), f"{document}:{line} runs {word}"


@each_document
def test_commands_and_flags_of_kvblock_exist(document: Path) -> None:
    known = flags_by_command()
    for line, command in commands(document):
        if command[0] == "kvblock":
            name = next((n for n in (2, 1, 0) if tuple(command[1 : 1 + n]) in known), 0)
            path = tuple(command[1 : 1 + name])
            is_command = name or len(command) == 1 or command[1].startswith("-")
            assert is_command, f"{document}:{line}: kvblock has no {command[1]!r}"
            for flag in flags_in(command):
                assert flag in known[path], f"{document}:{line}: {' '.join(path)} has no {flag}"
        elif command[0].startswith("--"):
            assert any(command[0] in flags for flags in known.values()), (
                f"{document}:{line}: no command has {command[0]}"
            )


@each_document
def test_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    (languages,) = re.findall(r"^LANGUAGES := (.*)$", makefile, re.MULTILINE)
    targets |= {f"test-{language}" for language in languages.split()}
    for line, command in commands(document):
        if command[0] == "make":
            named = [word for word in command[1:] if "=" not in word]
            assert set(named) <= targets, f"{document}:{line}: make {' '.join(named)}"


def test_the_table_of_settings_is_fresh_and_has_them_all() -> None:
    run(sys.executable, ROOT / "scripts/settings_table.py", "--check")
    (table,) = (one for one in tables(ROOT / "docs/configuration.md") if "Setting" in one.rows[0])
    names = [row[0].strip("`") for row in table.rows[1:]]
    assert sorted(names) == sorted(ServerSettings.model_fields)
    assert all(row[1] and row[3] for row in table.rows)


def test_every_reason_is_in_the_table_as_in_the_proto() -> None:
    (table,) = (one for one in tables(ROOT / "docs/errors.md") if one.rows[0][0] == "Reason")
    rows = [tuple(cell.strip("`") for cell in row[:2]) for row in table.rows[1:]]
    proto = (ROOT / "protos/kvblock/v1/errors.proto").read_text()
    comments = re.findall(r"((?:  // .*\n)+)  ERROR_REASON_([A-Z_]+) = [1-9]", proto)
    assert rows == [(name, text.split("// ")[1].partition(":")[0]) for text, name in comments]
    declared = {one.reason: one for one in ERRORS}
    assert rows == [(name, declared.pop(name).code) for name, _ in rows]
    assert not declared
    then = {one.reason: one.then.value for one in ERRORS}
    named = [re.findall(r"`([a-z_]+)`", row[2])[0] for row in table.rows[1:]]
    assert named == [then[name] for name, _ in rows]
    assert all(len(row) == 5 and all(row) for row in table.rows[1:])


def test_every_exit_code_is_in_the_table() -> None:
    (table,) = (one for one in tables(ROOT / "docs/compatibility.md") if one.rows[0][0] == "Code")
    codes = sorted(code for code in vars(failures).values() if type(code) is int)
    assert [int(row[0]) for row in table.rows[1:]] == codes


def test_figures_name_the_command_that_makes_them() -> None:
    for document in DOCUMENTS:
        for part in re.findall(r"<!-- figures: .*?<!-- end", document.read_text(), re.DOTALL):
            made = REPRODUCES.search(part)
            assert made or not re.search(r"\d", part), f"{document}: {part}"


def test_every_decision_is_listed_and_has_its_parts() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    architecture = ROOT / "docs/ARCHITECTURE.md"
    listed = [target for _, target in links(architecture) if target.startswith("adr/")]
    for number, path in enumerate(decisions, start=1):
        assert path.name.startswith(f"{number:04}-"), path
        assert f"adr/{path.name}" in listed, f"{architecture} does not list {path.name}"
        title, *parts = headings(path)
        assert title.startswith(f"{number}. "), path
        assert parts[:2] == ["Context", "Decision"], path
        assert parts[-2:] == ["Consequences", "Alternatives weighed"], path


def commands(document: Path) -> Iterator[tuple[int, list[str]]]:
    """The commands in a document's shell blocks and code spans, as words."""
    for block in blocks(document):
        if block.language == "sh":
            joined = re.sub(r"\s#.*", "", block.text.replace("\\\n", " ")).replace("\n", ";")
            for command in split(joined):
                yield block.line, command
    for line, text in spans(document):
        if text.startswith(("kvblock ", "make ", "--", ".venv/")):
            for command in split(text):
                yield line, command


def split(text: str) -> Iterator[list[str]]:
    """The commands of a line."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("|&;()"):
            if command:
                yield command
            command = []
        else:
            command.append(word)


def flags_in(command: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in command if word.startswith("--")]


def flags_by_command() -> dict[tuple[str, ...], set[str]]:
    """The flags of each command of kvblock, as its --help lists them."""
    found: dict[tuple[str, ...], set[str]] = {}

    def walk(path: tuple[str, ...], command: Any) -> None:
        options = [*command.params, command.get_help_option(command.context_class(command))]
        found[path] = {
            name for option in options for name in (*option.opts, *option.secondary_opts)
        }
        for name, inner in getattr(command, "commands", {}).items():
            walk((*path, name), inner)

    walk((), typer.main.get_command(make_app()))
    return found


def anchors(document: Path) -> set[str]:
    """What links into a document may name, as GitHub makes it of the headings."""
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings(document)}
