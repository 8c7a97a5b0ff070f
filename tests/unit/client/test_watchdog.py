"""The watchdog calls for a deadline that passed, and only for that."""

import threading

from kvblock.watchdog import Watchdog

FAR = 3600.0
PATIENCE = 60.0


def test_a_deadline_that_passes() -> None:
    expired = threading.Event()
    dog = Watchdog(expired.set)
    dog.arm(0.001)
    assert expired.wait(PATIENCE)
    dog.stop()


def test_a_nearer_deadline_wakes_it() -> None:
    expired = threading.Event()
    dog = Watchdog(expired.set)
    dog.arm(FAR)
    dog.disarm()
    dog.arm(0.001)
    assert expired.wait(PATIENCE)
    dog.stop()


def test_it_serves_again_after_it_has_called() -> None:
    calls: list[int] = []
    called = threading.Semaphore(0)

    def expired() -> None:
        calls.append(len(calls))
        called.release()

    dog = Watchdog(expired)
    for _ in range(3):
        dog.arm(0.001)
        assert called.acquire(timeout=PATIENCE)
    dog.stop()
    assert calls == [0, 1, 2]


def test_a_disarmed_deadline_passes_in_silence() -> None:
    calls: list[str] = []
    last = threading.Event()

    def expired() -> None:
        calls.append("x")
        last.set()

    dog = Watchdog(expired)
    for _ in range(100):
        dog.arm(0.02)
        dog.disarm()
    dog.arm(0.05)
    assert last.wait(PATIENCE)
    dog.stop()
    assert calls == ["x"]


def test_stop_ends_the_thread() -> None:
    dog = Watchdog(lambda: None)
    before = set(threading.enumerate())
    dog.arm(FAR)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    dog.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_thread_without_a_deadline() -> None:
    before = threading.active_count()
    Watchdog(lambda: None).stop()
    assert threading.active_count() == before
