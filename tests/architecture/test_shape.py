"""The shape of the sources: no long file, no circle of imports."""

from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGES = ("kvblock", "kvblock_cli", "kvblock_replay", "kvblock_service", "benchmarks")
LINES_MAX = 350


def test_no_file_is_long() -> None:
    sources = [
        path
        for place in ("service", "clients/python", "benchmarks", "scripts")
        for path in (ROOT / place).rglob("*.py")
        if "_pb2" not in path.name
    ]
    assert len(sources) > 200
    lengths = {str(path): len(path.read_text().splitlines()) for path in sources}
    assert [path for path, length in lengths.items() if length > LINES_MAX] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    left = {one: graph.find_modules_directly_imported_by(one) for one in graph.modules}
    # What imports nothing that is left is in no circle; it goes until nothing more can go.
    while done := {one for one, imported in left.items() if not imported & left.keys()}:
        left = {one: imported for one, imported in left.items() if one not in done}
    assert sorted(left) == []
