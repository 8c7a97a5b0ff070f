"""A whole replay: a server, its pools, the modes one after the other, the checks around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import kvblock
from kvblock_replay.checks import check_audit, check_nothing_held, check_pools
from kvblock_replay.driver import Run, run_mode
from kvblock_replay.modes import Mode, Setup
from kvblock_replay.trace import Request

TIMEOUT_S = 60.0
"""How long a call may take, in seconds: an Audit of a large pool is no quick one."""


class Access(NamedTuple):
    """A server, and what it takes to be let in."""

    address: str
    token: str | None = None
    tls: kvblock.Tls | bool = False


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
