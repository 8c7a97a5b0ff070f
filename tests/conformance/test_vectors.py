"""Every vector through every driver."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.bench import ENDS_SERVER, METHODS, Bench, ServerBench, bench, path_of
from tests.conformance.cases import CASES, Case
from tests.conformance.conftest import GetDriver
from tests.conformance.driving import DRIVERS, Driver
from tests.conformance.in_process import InProcess, InProcessBench, Server
from tests.conformance.steady import steady
from tests.waiting import happens

ends = [case for case in CASES if case.signal]
replaced = [case for case in CASES if case.replaced]
guarded = [case for case in CASES if case.access]
apart = (*ends, *replaced, *guarded)
calls = [case for case in CASES if case not in apart and case.method != ENDS_SERVER]
WITH_STUBS = [name for name in DRIVERS if name != "reflection"]
"""Drivers for servers with an access file: reflection takes an admin there."""

every_driver = pytest.mark.parametrize("name", DRIVERS)


@pytest.fixture(scope="session")
def in_process() -> Iterator[tuple[InProcess, Bench]]:
    """The server in this process, and what sets its scenes."""
    with Server() as server:
        yield InProcess(server), InProcessBench(server)


@pytest.mark.parametrize("case", calls, ids=lambda case: case.name)
def test_vector_in_process(case: Case, in_process: tuple[InProcess, Bench]) -> None:
    send_and_check(case, *in_process)


@every_driver
@pytest.mark.parametrize("case", calls, ids=lambda case: case.name)
def test_vector(name: str, case: Case, desk: ServerBench, driver_named: GetDriver) -> None:
    send_and_check(case, driver_named(name), desk)


def send_and_check(case: Case, driver: Driver | InProcess, desk: Bench) -> None:
    with desk.scene(case):
        before = desk.stats()
        driver.send(desk.address, path_of(case.method), [desk.filled(one) for one in case.sent()])
        check(case, driver, desk)
        # The server notices the end of a stream by and by.
        happens(lambda: sorted(desk.streaming()) == sorted(case.attached))
        after = desk.stats()
        if case.error.code != "OK" and not case.changes:
            assert after == before
        if case.method == "Session":
            assert after.pools[0].revision - before.pools[0].revision == case.changes
        desk.audit()


@every_driver
@pytest.mark.parametrize("case", ends, ids=lambda case: case.name)
def test_vector_of_a_server_that_ends(name: str, case: Case, driver_named: GetDriver) -> None:
    driver = driver_named(name)
    assert case.signal is not None
    with bench() as desk, desk.scene(case):
        driver.send(desk.address, path_of(case.method), case.sent(), linger=True)
        while not desk.streaming():
            pass
        desk.signal(case.signal)
        check(case, driver, desk)


@every_driver
@pytest.mark.parametrize("case", replaced, ids=lambda case: case.name)
def test_vector_of_a_stream_that_is_replaced(
    name: str, case: Case, desk: ServerBench, driver_named: GetDriver
) -> None:
    driver = driver_named(name)
    assert case.replaced is not None
    with desk.scene(case):
        driver.send(desk.address, path_of(case.method), case.sent(), linger=True)
        happens(lambda: desk.streaming() == [case.replaced])
        with desk.resumed(case.replaced):
            check(case, driver, desk)


@every_driver
@pytest.mark.parametrize("case", [case for case in CASES if case.method == ENDS_SERVER])
def test_vector_that_ends_the_server(name: str, case: Case, driver_named: GetDriver) -> None:
    driver = driver_named(name)
    with bench() as desk, desk.scene(case):
        driver.send(desk.address, path_of(case.method), case.sent())
        check(case, driver, desk)
        assert desk.wait_until_gone() == 0


@pytest.mark.parametrize("name", WITH_STUBS)
@pytest.mark.parametrize("case", guarded, ids=lambda case: case.name)
def test_vector_of_a_server_that_asks_who_is_calling(
    name: str, case: Case, driver_named: GetDriver, tmp_path: Path
) -> None:
    driver = driver_named(name)
    assert case.access is not None
    file = tmp_path / "access.toml"
    file.touch(mode=0o600)
    file.write_text(case.access)
    with bench("--access-file", str(file)) as desk:
        desk.do(case.before)
        driver.send(desk.address, path_of(case.method), case.sent())
        check(case, driver, desk)


def check(case: Case, driver: Driver | InProcess, desk: Bench) -> None:
    outcome = driver.receive()
    if (case.access or case.attached) and case.error.retry is not None:
        # Time has passed since the calls that used the rate up, and since the attach.
        assert outcome.status.retry is not None
        assert 0 < outcome.status.retry <= case.error.retry
        outcome = outcome._replace(status=replace(outcome.status, retry=case.error.retry))
    assert [steady(one) for one in outcome.answers] == case.awaited()
    assert outcome.status == replace(case.error, metadata=desk.filled(case.error.metadata))


def test_vectors_have_names_of_their_own() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_called_with_success_and_in_vain(method: str) -> None:
    codes = [case.error.code for case in CASES if case.method == method]
    assert "OK" in codes
    if METHODS[method].input_type.fields:
        assert set(codes) != {"OK"}
