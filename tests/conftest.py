"""Fixtures for all tests: real servers, and seeds that a failure shows.

Rules:
- A server that a test was given has to end well: its pools' Audit clean, exit code 0, no traceback
  in its log. A test that ends its server by itself is spared the first.
- Warnings are errors, in the tests and in what they start; none may be in the log of any server.
- Randomness comes from `seed`; `TEST_SEED=N` gives every test that seed.
- Ctrl-C works in what tests start, also when a shell runs them in the background, where it has
  SIGINT ignored and programs inherit that.
- No test on random input fails because the machine is busy; what fails prints how to repeat it.
"""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

import pytest
from hypothesis import settings

import kvblock
from tests import preloaded
from tests.examples import examples
from tests.logs import no_faults, no_warnings

DEFAULT_POOLS = ("main:total=64,block_size=16,device=7",)

settings.register_profile("kvblock", deadline=None, print_blob=True, max_examples=examples(100))
if settings.get_current_profile_name() == "default":
    # The mutations have a profile of their own.
    settings.load_profile("kvblock")

ServerFactory: TypeAlias = Callable[..., kvblock.EmbeddedServer]


def pytest_configure() -> None:
    """Give Ctrl-C its meaning back, and let what tests start take warnings for errors, too."""
    os.environ["PYTHONWARNINGS"] = "error"
    preloaded.install()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Tell the seed that is given from outside."""
    return f"TEST_SEED={os.environ.get('TEST_SEED', '(a new one for each test)')}"


@pytest.fixture
def seed() -> int:
    """A seed for the test's randomness, shown when the test fails."""
    number = int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"TEST_SEED={number}")
    return number


@pytest.fixture
def fresh_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the test starts be started as usual: see `tests.preloaded`."""
    monkeypatch.setattr(subprocess, "Popen", preloaded.USUAL)


@pytest.fixture(autouse=True)
def no_server_warns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at the logs of all EmbeddedServers that end in a test, whoever has started them."""
    logs: list[str] = []
    stop = kvblock.EmbeddedServer.stop

    def recording(self: kvblock.EmbeddedServer) -> int | None:
        code = stop(self)
        logs.append(self.stderr)
        return code

    monkeypatch.setattr(kvblock.EmbeddedServer, "stop", recording)
    yield
    for log in logs:
        no_warnings(log)


@pytest.fixture
def server_factory() -> Iterator[ServerFactory]:
    """Starts servers that end with the test: `server_factory(pools, extra_args, env=...)`."""
    with ExitStack() as servers:

        def start(
            pools: Sequence[str] = DEFAULT_POOLS,
            extra_args: Sequence[str] = (),
            *,
            env: Mapping[str, str] | None = None,
        ) -> kvblock.EmbeddedServer:
            server = servers.enter_context(kvblock.EmbeddedServer(pools, extra_args, env=env))
            servers.callback(check_ended_well, server)
            return server

        yield start


@pytest.fixture(scope="session")
def shared_server() -> Iterator[kvblock.EmbeddedServer]:
    """A server for tests that mind neither each other's blocks nor what there is of them.

    Its one pool, `main`, has 1,000,000 blocks of 16 slots on device 7.
    """
    with kvblock.EmbeddedServer(("main:total=1000000,block_size=16,device=7",)) as server:
        yield server
        check_ended_well(server)


@pytest.fixture
def server(server_factory: ServerFactory) -> kvblock.EmbeddedServer:
    """A server with one pool, `main`: 64 blocks of 16 slots on device 7."""
    return server_factory()


def check_ended_well(server: kvblock.EmbeddedServer) -> None:
    """Stop a server and look for what it may have got wrong."""
    if server.process.poll() is None:
        with kvblock.connect(server.address, timeout=30.0) as kv:
            for report in kv.audit():
                assert report.clean, report
    assert server.stop() == 0, server.stderr
    no_faults(server.stderr)
