"""The checker finds what it is there for."""

import pytest

from tests.integration.concurrency.history import History


@pytest.fixture
def history() -> History:
    """`a` held 0 and 1 and gave them back; `b` took 1, and holds it."""
    history = History()
    history.granted("a", [0, 1])
    history.giving_back("a", [0, 1])
    history.granted("b", [1])
    return history


def test_one_after_the_other_is_well(history: History) -> None:
    history.granted("c", [0])
    history.giving_back("c", [0])
    history.granted("a", [0])
    assert history.overlaps() == []
    assert history.held() == {0, 1}
    assert history.grants == 5


def test_block_that_somebody_holds_still(history: History) -> None:
    history.granted("c", [1])
    assert history.overlaps() == ["block 1 was held by b in (2, inf) and by c in (3, inf)"]


def test_block_that_was_given_back_later(history: History) -> None:
    history.granted("c", [0])
    history.granted("d", [0])
    history.giving_back("c", [0])
    history.giving_back("d", [0])
    assert history.overlaps() == ["block 0 was held by c in (3, 5) and by d in (4, 6)"]


def test_block_held_within_another_hold(history: History) -> None:
    history.granted("c", [0])
    history.granted("d", [0])
    history.giving_back("d", [0])
    history.giving_back("c", [0])
    assert len(history.overlaps()) == 1


def test_block_twice_to_one_client(history: History) -> None:
    with pytest.raises(AssertionError, match="b was given block 1, which it holds already"):
        history.granted("b", [1])
