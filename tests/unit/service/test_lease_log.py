"""How many lines are logged of what engines may cause, by a clock that is moved by hand."""

import logging

import pytest

from kvblock_service.event_counter import Lines
from kvblock_service.lease_log import LINES_AT_ONCE, LeaseEvent, LeaseLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_at_once_up_to_the_burst_and_then_one_a_second() -> None:
    clock = Clock()
    lines = Lines(3, clock)
    assert [lines.take() for _ in range(5)] == [0, 0, 0, None, None]
    clock.now += 0.75
    assert lines.take() is None
    clock.now += 0.25
    assert [lines.take(), lines.take()] == [3, None]
    clock.now += 1000
    assert [lines.take() for _ in range(4)] == [1, 0, 0, None]


def test_a_loop_of_attaches_fills_no_disk_and_hides_no_other_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = LeaseLog(clock)
    with caplog.at_level(logging.INFO):
        for epoch in range(1, LINES_AT_ONCE + 501):
            log.tell(LeaseEvent.ATTACHED, "kv", "looping", epoch, peer="unix:")
        assert len(caplog.records) == LINES_AT_ONCE
        caplog.clear()
        log.tell(LeaseEvent.EXPIRED, "kv", "other", 7, blocks=3)
        clock.now += 1
        log.tell(LeaseEvent.ATTACHED, "kv", "looping", 5000, peer="unix:")
    expired, attached = (vars(record) for record in caplog.records)
    assert (expired["levelname"], expired["msg"]) == ("WARNING", "a lease expired")
    assert (expired["engine"], expired["blocks"]) == ("other", 3)
    assert "left_out" not in expired
    assert (attached["levelname"], attached["msg"]) == ("INFO", "an engine attached")
    assert (attached["epoch"], attached["left_out"]) == (5000, 500)
