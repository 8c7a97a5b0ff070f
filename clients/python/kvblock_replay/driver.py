"""Runs a replay: every Step of the simulation is a real call to a real server.

Rules:
  - One mode runs after the other; around each of them the pools are checked.
  - Engine i is the session `replay-i`. Steps are made one at a time, in the order of virtual time,
    so the server's answers, and with them the virtual result, are the same every time.
  - What the clock says is kept apart from it: the duration of every Step call, and of the whole.
  - However it ends, nothing stays held: sessions are detached in order, and what the engine of a
    session that broke still holds is freed.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import kvblock
from kvblock import Client, Session
from kvblock.errors import KVBlockError
from kvblock.results import StepPolicy
from kvblock_replay.checks import HeldBlocks, check_audit, check_nothing_held, check_pools
from kvblock_replay.modes import Mode, Setup
from kvblock_replay.simulation import Outcome, OwedCall, simulate
from kvblock_replay.trace import Request

ENGINE_NAME = "replay-{}"
TIMEOUT_S = 60.0
"""How long a call may take, in seconds: an Audit of a large pool is no quick one."""

_log = logging.getLogger(__name__)

_STEPS_PER_REPORT = 64


class Access(NamedTuple):
    """A server, and what it takes to be let in."""

    address: str
    token: str | None = None
    tls: kvblock.Tls | bool = False


@dataclass(slots=True)
class Measured:
    """What the clock said about a mode."""

    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    """Duration of every Step call, from before its request is made to after its answer is read."""
    wall_ns: int = 0
    """Duration of all of them and of the simulation between them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A mode that was replayed."""

    mode: Mode
    outcome: Outcome
    measured: Measured


def replay(
    requests: tuple[Request, ...],
    setups: Sequence[Setup],
    server: Access | None,
    begin_progress: Callable[[Mode], Callable[[int], None]],
) -> list[Run]:
    """Replay requests in each mode, against the given server or one of our own.

    When this returns, every mode's Audit was clean and nothing was held after it.

    Raises PoolsDifferError when the server does not host the pools that are needed, ReplayError
    when a pool is in use, the server's answers do not add up or it is left with blocks held,
    KVBlockError when a call fails.
    """
    # A replay whose server went away has nothing more to measure: it does not wait for another one.
    connect = partial(kvblock.connect, timeout=TIMEOUT_S, retries=False)
    with (
        _server(server, setups) as access,
        connect(access.address, token=access.token, tls=access.tls) as client,
    ):
        check_pools(client, setups)
        runs = []
        for setup in setups:
            runs.append(run_mode(client, requests, setup, begin_progress(setup.mode)))
            check_nothing_held(client, setup)
            check_audit(client, setup)
        return runs


@contextmanager
def _server(given: Access | None, setups: Sequence[Setup]) -> Iterator[Access]:
    if given is not None:
        yield given
        return
    pools = tuple(text for setup in setups for text in setup.definitions())
    with kvblock.EmbeddedServer(pools=pools) as server:
        yield Access(server.address)


def run_mode(
    client: Client, requests: tuple[Request, ...], setup: Setup, progress: Callable[[int], None]
) -> Run:
    """Replay requests in one mode; `progress` is called now and then with how many are done.

    Raises ReplayError when the server's answers do not add up, KVBlockError when it refuses a call
    or is gone.
    """
    sessions: list[Session] = []
    try:
        with ExitStack() as stack:
            for index in range(len(setup.layout.pool_of_engine)):
                session = client.session(
                    pool=setup.pool_of(index), engine=ENGINE_NAME.format(index)
                )
                sessions.append(stack.enter_context(session))
            return _run(sessions, requests, setup, progress)
    except BaseException:
        _free_all(client, sessions)
        raise


def _run(
    sessions: list[Session],
    requests: tuple[Request, ...],
    setup: Setup,
    progress: Callable[[int], None],
) -> Run:
    steps = [session.step for session in sessions]
    held = HeldBlocks(setup)
    measured = Measured()
    clock = time.perf_counter_ns
    simulation = simulate(requests, setup.layout)
    begin = clock()
    try:
        call = next(simulation)
        while True:
            if isinstance(call, OwedCall):
                call = simulation.send(sessions[call.engine].renew(hints=call.hints))
                continue
            sent = clock()
            result = steps[call.engine](
                free=call.free,
                allocate=call.allocate,
                num_blocks=call.num_blocks,
                policy=StepPolicy.IN_ORDER_UNTIL_REFUSED,
                hints=call.hints,
            )
            measured.latencies_ns.append(clock() - sent)
            held.apply(call, result)
            if len(measured.latencies_ns) % _STEPS_PER_REPORT == 0:
                progress(call.done)
            call = simulation.send(result)
    except StopIteration as end:
        outcome: Outcome = end.value
    measured.wall_ns = clock() - begin
    progress(outcome.requests)
    return Run(setup.mode, outcome, measured)


def _free_all(client: Client, sessions: list[Session]) -> None:
    """Free what engines hold whose sessions broke; the failure that broke them matters more."""
    try:
        for session in sessions:
            pool, engine = session.pool, session.engine
            held = [row.sequence_id for row in client.list_sequences(pool=pool, engine=engine)]
            if held:
                client.step(pool=pool, engine=engine, free=held)
    except KVBlockError as error:
        _log.warning("could not free what the replay's engines hold: %s", error)
