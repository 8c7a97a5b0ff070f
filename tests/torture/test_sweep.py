"""A sample of the sweep in the suite, and the proof that the sweep finds what it looks for."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvblock_service.core.commands import Allocate, Stamp
from kvblock_service.core.pool import Geometry
from kvblock_service.journal import codec
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.open import OpenedJournal, open_journal
from kvblock_service.journal.records import CommandRecord
from tests.torture.damage import judge, starting
from tests.torture.damage.cases import Case, cases_of, held_cases
from tests.torture.damage.judge import EXACT, REFUSED
from tests.torture.damage.starting import BOUNDS, Start, Starter
from tests.torture.damage.tree import Content, Tree
from tests.torture.sweep import VARIANTS
from tests.unit.journal.kept import write

POOLS = (Geometry("main", 8, 16, 0),)
NOTHING = Case("extend", "extra", ("zeros",))


@pytest.mark.parametrize("number", [0, 1])
def test_a_sample_of_all_damage_is_exact_or_refused(seed: int, number: int) -> None:
    command = [sys.executable, "-m", "tests.torture.sweep", "--sample", "200"]
    command += ["--seed", str(seed), "--only", str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{VARIANTS[number]}:\n{done.stdout}{done.stderr}"
    assert "cases in" in done.stdout


@pytest.fixture
def swept(tmp_path: Path) -> tuple[Tree, Start, Path]:
    """A directory with a block that is held and a file that belongs to nobody."""
    state = tmp_path / "written"
    opened = open_journal(state, POOLS, BOUNDS)
    command, stamp = Allocate("a", 0, "", 1, 3), Stamp(1, 2, "")
    opened.pools[0].pool.apply(command, stamp)
    write(opened.journal, [codec.encode(CommandRecord("main", stamp, command))])
    opened.journal.close()
    opened.state_dir.release()
    (state / "extra").write_bytes(b"extra")
    tree = Tree.read(state)
    shutil.rmtree(state)
    place = tmp_path / "place"
    place.mkdir()
    with Starter() as starter:
        start = judge.expectation(tree, Start(POOLS, "process"), place, starter)
    return tree, start, place


@pytest.fixture
def starter() -> Iterator[Starter]:
    with Starter() as made:
        yield made


def test_what_is_not_damaged_is_exact_or_refused(
    swept: tuple[Tree, Start, Path], starter: Starter
) -> None:
    tree, start, place = swept
    assert judge.judged(NOTHING, tree, start, place, starter).kind == EXACT
    emptied = Case("truncate", "identity.json", (0,))
    assert judge.judged(emptied, tree, start, place, starter).kind == REFUSED
    moved = Case("rename", "extra", ("elsewhere",))
    assert judge.judged_while_held(moved, tree, start, place, starter).kind == REFUSED


def emptied_first(root: Path) -> None:
    shutil.rmtree(root)


def removes_a_file(root: Path) -> None:
    (root / "extra").unlink()


def refuses_without_a_name(root: Path) -> None:
    raise JournalDamaged("something is wrong")


def refuses_and_writes(root: Path) -> None:
    (root / "extra").write_bytes(b"other")
    raise JournalDamaged(f"{root} is wrong")


def fails(root: Path) -> None:
    raise KeyError(root)


def hangs(root: Path) -> None:
    signal.pause()


def dies(root: Path) -> None:
    signal.raise_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    ("bug", "kind"),
    [
        (emptied_first, "another state, in silence"),
        (removes_a_file, "exact, but a file is changed or gone"),
        (refuses_without_a_name, "refused in words that name no file"),
        (refuses_and_writes, "refused, but a file is changed or gone"),
        (fails, "raised KeyError"),
        (hangs, "hung"),
        (dies, "died"),
    ],
)
def test_a_planted_bug_is_found(
    swept: tuple[Tree, Start, Path],
    starter: Starter,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[Path], None],
    kind: str,
) -> None:
    def opens(root: Path, *arguments: object, **options: object) -> OpenedJournal:
        bug(root)
        return open_journal(root, *arguments, **options)  # type: ignore[arg-type]

    tree, start, place = swept
    monkeypatch.setattr(starting, "open_journal", opens)
    monkeypatch.setattr(starting, "HANG_SECONDS", 1)
    assert judge.judged(NOTHING, tree, start, place, starter).kind == kind


def test_two_servers_on_one_state_are_found(
    swept: tuple[Tree, Start, Path], starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, start, place = swept
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    verdict = judge.judged_while_held(Case("delete", "extra"), tree, start, place, starter)
    assert verdict.kind == "two servers on one state"


def test_every_bit_and_every_length_of_what_decides() -> None:
    tree = Tree(
        {
            "1/part-1": Content(b"abc", 3),
            "1/part-2": Content(b"de", 2),
            "1/part-3": Content(b"", 0),
            "facts": Content(json.dumps({"key": 1}).encode(), 10),
        },
        ["1"],
    )
    cases = cases_of(tree, 100)
    assert len(cases) == len(set(cases))
    flips = [case for case in cases if case.kind == "flip"]
    assert [one.more for one in flips if one.path == "1/part-1"] == [(0, 0), (1, 1), (2, 2)]
    assert len([one for one in flips if one.path == "1/part-2"]) == 2 * 8
    assert len([one for one in flips if one.path == "facts"]) == 10 * 8
    lengths = [case.more for case in cases if case[:2] == ("truncate", "facts")]
    assert lengths == [(length,) for length in range(10)]
    assert Case("rename", "1/part-2", ("1/part-3",)) in cases
    assert Case("swap", "1/part-2", ("1/part-3",)) in cases
    assert Case("copy", "1/part-1", ("1/part-4",)) not in cases
    assert Case("copy", "1/part-3", ("1/part-4",)) in cases
    assert Case("delete", "1") in cases
    for kind in ("directory", "symlink", "FIFO", "socket"):
        assert Case("replace", "facts", (kind,)) in cases
    assert Case("delete", "facts") in held_cases(tree)


def test_a_tree_is_written_as_it_was_read(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "file").write_bytes(b"\0x\0\0")
    (source / "zeros").write_bytes(bytes(5000))
    copy.mkdir()
    tree = Tree.read(source)
    tree.write(copy)
    assert Tree.read(copy) == tree
    assert (copy / "a" / "b" / "file").read_bytes() == b"\0x\0\0"
    assert (copy / "zeros").read_bytes() == bytes(5000)
