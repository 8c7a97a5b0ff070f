"""Who may import whom: the contracts of pyproject.toml, and the core's own short list."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "service/kvblock_service/core"
CLIENT = ROOT / "clients/python/kvblock"

CORE_MAY_IMPORT = {
    "__future__",
    "array",
    "itertools",
    "operator",
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "kvblock_service.core",
    "typing",
}
# Their order of iteration, or their result, can differ from one process to the next.
CORE_MAY_NOT_NAME = {"frozenset", "hash", "id", "input", "open", "print", "set"}

core_modules = pytest.mark.parametrize(
    "path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE))
)


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


@core_modules
def test_core_imports_only_its_list(path: Path) -> None:
    for node in ast.walk(parse(path)):
        for name in imported(node):
            assert any(
                name == allowed or name.startswith(f"{allowed}.") for allowed in CORE_MAY_IMPORT
            ), f"{path}:{getattr(node, 'lineno', 0)} imports {name}"


@core_modules
def test_core_has_no_undefined_order(path: Path) -> None:
    for node in ast.walk(parse(path)):
        assert not isinstance(node, ast.Set | ast.SetComp), f"{path}:{node.lineno} makes a set"
        if isinstance(node, ast.Name):
            assert node.id not in CORE_MAY_NOT_NAME, f"{path}:{node.lineno} names {node.id}"


def test_client_loads_the_service_only_when_asked_to_serve() -> None:
    for path in CLIENT.rglob("*.py"):
        for node in at_import_time(parse(path)):
            for name in imported(node):
                assert name.split(".")[0] != "kvblock_service", f"{path} imports {name} when loaded"


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(node: ast.AST) -> Iterator[str]:
    """The names of the modules that this very node imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield "." * node.level + (node.module or "")


def at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is loaded: not the bodies of functions, not what only types need."""
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not (for_types or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield child
            yield from at_import_time(child)
