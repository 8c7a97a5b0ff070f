"""One server and one process of each driver for all vectors."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import pytest

from tests.conformance.bench import ServerBench, bench
from tests.conformance.driving import DRIVERS, Driver

GetDriver: TypeAlias = Callable[[str], Driver]


@pytest.fixture(scope="session")
def desk() -> Iterator[ServerBench]:
    """A server that all vectors share."""
    with bench() as server:
        yield server


@pytest.fixture(scope="session")
def driver_named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GetDriver]:
    """Starts a driver when it is first asked for."""
    # The processes that run the tests have folders side by side, and make each driver once.
    made = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        made = made.parent
    with ExitStack() as stack:
        started: dict[str, Driver] = {}

        def get(name: str) -> Driver:
            if name not in started:
                folder = made / name
                folder.mkdir(exist_ok=True)
                started[name] = stack.enter_context(DRIVERS[name](folder))
            return started[name]

        yield get
