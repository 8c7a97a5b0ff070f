"""The shape of the hand-written sources: every module says its idea, no function grows long."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 60


def sources() -> list[Path]:
    client = ROOT / "clients/python/kvblock"
    found = [*(ROOT / "service").rglob("*.py"), *client.rglob("*.py")]
    return sorted(path for path in found if not path.is_relative_to(client / "v1"))


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
