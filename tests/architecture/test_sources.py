"""The shape of the hand-written sources: every module says its idea, no function grows long.

No name is assigned twice in a row of statements either: the linter finds that of functions, classes
and imports, and not of values.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 60
TOPS = ("service", "clients", "tests", "scripts")


def sources() -> list[Path]:
    client = ROOT / "clients/python/kvblock"
    found = [*(ROOT / "service").rglob("*.py"), *client.rglob("*.py")]
    return sorted(path for path in found if not path.is_relative_to(client / "v1"))


def everything() -> list[Path]:
    stubs = ROOT / "clients/python/kvblock/v1"
    found = [path for top in TOPS for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in found if path.parent != stubs)


every_source = pytest.mark.parametrize(
    "path", sources(), ids=lambda path: str(path.relative_to(ROOT))
)


@every_source
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@every_source
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name} ({lines} lines, from line {node.lineno})"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert not long, f"{path}: longer than {FUNCTION_LINES_MAX} lines: {', '.join(long)}"


@pytest.mark.parametrize("path", everything(), ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_modules_and_classes_are_assigned_once(path: Path) -> None:
    repeated = [
        f"{name} (line {block[0].lineno} and after)"
        for block in blocks(ast.parse(path.read_text()))
        for name, times in Counter(assigned(block)).items()
        if times > 1
    ]
    assert not repeated, f"{path}: assigned more than once: {', '.join(repeated)}"


def test_names_that_are_assigned_twice_are_found() -> None:
    twice = "A = 1\nB: int = 2\nclass C:\n    D = 1\n    E, D = 2, 3\n(A, F) = 4, 5\nB = 6\n"
    alternatives = "if x:\n    A = 1\nelse:\n    A = 2\nB: int\nB = 3\nB += 4\nC[0] = C[1] = 5\n"
    found = [Counter(assigned(block)) for block in blocks(ast.parse(twice))]
    assert [{name for name, times in one.items() if times > 1} for one in found] == [
        {"A", "B"},
        {"D"},
    ]
    found = [Counter(assigned(block)) for block in blocks(ast.parse(alternatives))]
    assert max(times for one in found for times in one.values()) == 1


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The rows of statements that run when a module is loaded; branches are rows of their own."""
    for field in ("body", "orelse", "finalbody"):
        row = getattr(node, field, None)
        if isinstance(row, list) and row:
            yield row
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler) and not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            yield from blocks(child)


def assigned(block: list[ast.stmt]) -> Iterator[str]:
    """The names that the statements of a row assign, each as often as they do."""
    for statement in block:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id
