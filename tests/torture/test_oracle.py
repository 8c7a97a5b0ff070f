"""The oracle, over histories written by hand: it has to find what is wrong, and no more."""

from pathlib import Path
from typing import Any

import pytest

from tests.torture.__main__ import setting_of
from tests.torture.history import History
from tests.torture.oracle import Verdict, judge
from tests.torture.setting import BATCHES, Setting

SECOND = 10**9


class Told:
    """Histories in a directory; times are in seconds."""

    def __init__(self, directory: Path) -> None:
        self.setting: Setting = setting_of(1, 60.0, directory, plant=None, durability="process")
        self.nemesis = History(directory / "nemesis.log")

    def life(self, number: int) -> History:
        return History(self.setting.path / f"engine-{number}.log")

    def attached(self, at: float, life: int, epoch: int, engine: str = "a") -> None:
        self._add(self.life(life), at, "attached", life=life, engine=engine, epoch=epoch)

    def granted(self, at: float, life: int, call: int, grants: dict[int, list[int]]) -> None:
        log = self.life(life)
        self._add(log, at - 0.001, "call", life=life, id=call, frees=[], grows=list(grants))
        self._add(log, at, "answered", life=life, id=call, grants=grants)

    def late(
        self, at: float, life: int, epoch: int, outcome: str, *, by_nemesis: bool = False
    ) -> None:
        log = self.nemesis if by_nemesis else self.life(life)
        self._add(
            log, at + 0.001, "late call", engine="a", life=life, epoch=epoch, op="free", sequence=3,
            sent=int(at * SECOND), outcome=outcome,
        )  # fmt: skip

    def lost(self, at: float, life: int, *, told: bool) -> None:
        self._add(self.life(life), at, "lost", life=life, told=told)

    def verdict(self) -> Verdict:
        return judge(self.setting)

    @staticmethod
    def _add(log: History, at: float, kind: str, **facts: Any) -> None:
        log.add(kind, int(at * SECOND), **facts)


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_a_late_call_may_be_carried_out_while_no_later_lease_has_begun(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.lost(5, life=1, told=False)
    told.late(6, 1, 10, "carried out")
    told.late(7, 1, 10, "carried out", by_nemesis=True)
    told.attached(8, life=2, epoch=11)
    # Another name's lease says nothing of this one's.
    told.attached(2, life=3, epoch=12, engine="b")
    verdict = told.verdict()
    assert verdict.violations == []
    assert verdict.counts["late calls sent"] == 2
    assert verdict.counts["late calls under a lease that went on"] == 2


@pytest.mark.parametrize("by_nemesis", [False, True])
def test_a_late_call_has_to_be_refused_once_a_later_lease_has_begun(
    told: Told, by_nemesis: bool
) -> None:
    told.attached(1, life=1, epoch=10)
    told.attached(8, life=2, epoch=11)
    told.late(8.5, 1, 10, "refused", by_nemesis=by_nemesis)
    told.late(9, 1, 10, "carried out", by_nemesis=by_nemesis)
    told.late(10, 1, 10, "unanswered", by_nemesis=by_nemesis)
    verdict = told.verdict()
    (violation,) = verdict.violations
    assert violation.startswith("a late free is carried out 1.000 s after the epoch's end: a, life")
    assert verdict.counts["late calls sent"] == 3
    assert verdict.counts["late calls refused"] == 1
    assert verdict.counts["late calls without an answer"] == 1


def test_what_the_server_has_called_over_stays_over(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.late(2, 1, 10, "refused")
    told.late(3, 1, 10, "carried out")
    told.attached(1, life=2, epoch=20)
    told.lost(2, life=2, told=True)
    told.late(3, 2, 20, "carried out")
    assert len(told.verdict().violations) == 2


def test_a_late_call_is_refused_with_one_code_only(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.late(2, 1, 10, "INTERNAL")
    (violation,) = told.verdict().violations
    assert "ended with INTERNAL" in violation


def test_a_block_in_two_tables_at_one_time(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.granted(2, 1, 1, {3: [7, 8]})
    told.granted(6, 1, 2, {4: [9]})
    told.attached(1, life=2, epoch=11, engine="b")
    told.granted(4, 2, 1, {3: [8]})
    told.granted(5, 2, 2, {})
    (violation,) = told.verdict().violations
    assert violation.startswith("block 8 is in two live tables for 1.000 s")


def test_a_block_after_its_holder_was_heard_of_last(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.granted(2, 1, 1, {3: [7, 8]})
    told.attached(1, life=2, epoch=11, engine="b")
    told.granted(4, 2, 1, {3: [8]})
    assert told.verdict().violations == []


def test_a_grant_that_a_server_did_not_have_after_its_start(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.granted(2, 1, 1, {3: [7]})
    told.granted(6, 1, 2, {4: [9]})
    engines = {"a": {"epoch": 10, "tables": {"3": [8]}, "acquired": []}}
    told.nemesis.add(
        "server has", 4 * SECOND, begun=3 * SECOND, engines=engines, changed=[], audit=[]
    )
    (violation,) = told.verdict().violations
    assert "sequence 3: answered [7], the server has [8]" in violation


def test_a_reserved_block_is_nobody_s(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.granted(2, 1, 1, {7: [1, 2]})
    assert told.verdict().violations == []
    told.granted(3, 1, 2, {8: [0]})
    (found,) = told.verdict().violations
    assert found.startswith("block 0 is reserved, and was granted: a, life 1, epoch 10")


def test_an_acquired_block_that_a_server_did_not_have_after_its_start(told: Told) -> None:
    told.attached(1, life=1, epoch=10)
    told.granted(2, 1, 1, {BATCHES[0]: [7, 9]})
    told.granted(6, 1, 2, {4: [3]})
    engines = {"a": {"epoch": 10, "tables": {}, "acquired": [9]}}
    told.nemesis.add(
        "server has", 4 * SECOND, begun=3 * SECOND, engines=engines, changed=[], audit=[]
    )
    (violation,) = told.verdict().violations
    assert "acquired [7, 9], the server has [9]" in violation
