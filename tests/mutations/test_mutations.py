"""The mutations fit the sources: each can be planted, and names tests that are there."""

from collections import Counter
from pathlib import Path

from tests.mutations.catalogue import Mutation, load, unfit

ROOT = Path(__file__).parents[2]


def test_each_can_be_planted() -> None:
    assert [problem for mutation in load() for problem in unfit(mutation, ROOT)] == []


def test_each_has_a_name_of_its_own() -> None:
    assert [name for name, times in Counter(one.name for one in load()).items() if times > 1] == []


def test_what_cannot_be_planted_is_told(tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text("a = 1\na = 1\n")
    (tmp_path / "test.py").touch()
    fits = Mutation("m", "source.py", "a = 1\na", "a", ["test.py::test_a"])
    assert unfit(fits, tmp_path) == []
    assert unfit(fits._replace(text="a = 1"), tmp_path) == [
        "m: source.py has its text 2 times, not once"
    ]
    assert unfit(fits._replace(text="b"), tmp_path) == [
        "m: source.py has its text 0 times, not once"
    ]
    assert unfit(fits._replace(becomes=fits.text), tmp_path) == ["m: nothing is replaced"]
    assert unfit(fits._replace(file="none.py", tests=["none.py"]), tmp_path) == [
        "m: there is no none.py",
        "m: there is no none.py",
    ]
