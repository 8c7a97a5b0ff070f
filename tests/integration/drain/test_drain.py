"""A server that is told to end while it is in use: everybody gets an answer or UNAVAILABLE."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckResponse

import kvblock
from kvblock import ErrorReason, Granted, KVBlockError, Refused, UnavailableError
from tests.integration.drain import load
from tests.integration.spawned import Spawned, spawned

SESSIONS = 8
UNARY = 4
# Longer than the test waits for the end: whoever holds up the drain lets the test fail.
GRACE = 600
# Who says nothing is neither cut off nor expired, however slow the machine.
PATIENT = ["--slow-reader-seconds", "600", "--request-seconds", "600", "--lease-ttl", "600"]


class Ends(NamedTuple):
    """How everybody's last call ended."""

    sessions: list[KVBlockError]
    silent: list[KVBlockError]
    unary: list[KVBlockError]
    waited: Granted | Refused | BaseException
    watched: KVBlockError
    reflected: KVBlockError
    states: list[int]


@pytest.mark.parametrize("listener", ["unix", "tcp"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_everybody_is_told(
    number: signal.Signals, listener: str, tmp_path: Path, seed: int
) -> None:
    listen = ["--listen", f"unix:{tmp_path}/kv.sock", "--listen", "127.0.0.1:0"]
    full = ["--pool", "full:total=1", "--default-pool", "main"]
    with spawned(*listen, *full, *PATIENT, "--grace", str(GRACE)) as server:
        address = server.ready()[listener == "tcp"]
        ends = asyncio.run(run_into_the_end(address, server, number, Random(seed)))
        assert server.end() == 0
        log = server.log()
    for error in ends.silent:
        assert isinstance(error, UnavailableError), repr(error)
        assert error.reason is ErrorReason.DRAINING
        assert error.retry_after is not None
    for error in ends.sessions + ends.unary:
        # Who is just sending may learn from gRPC only that nobody listens any more.
        assert isinstance(error, UnavailableError), repr(error)
        assert error.reason in (ErrorReason.DRAINING, None)
    assert isinstance(ends.waited, Refused | UnavailableError)
    # Reflection knows nothing of a drain; gRPC cuts it off.
    assert ends.reflected.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    assert isinstance(ends.watched, UnavailableError), repr(ends.watched)
    states = [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]
    assert ends.states == states
    assert "Traceback" not in log, log
    assert number.name in log
    assert list(tmp_path.iterdir()) == []


async def run_into_the_end(
    address: str, server: Spawned, number: signal.Signals, random: Random
) -> Ends:
    """Load the server, send it the signal in the middle, and see how all ends."""
    progress = load.Progress()
    states: list[int] = []
    async with AsyncExitStack() as stack:

        async def client(engine: str) -> kvblock.AsyncClient:
            return await stack.enter_async_context(load.connect(address, engine))

        clients = [await client(f"engine-{one}") for one in range(SESSIONS + UNARY)]
        callers = [Random(random.random()) for _ in clients]
        calls = [
            (load.steps if one < SESSIONS else load.unary_calls)(kv, callers[one])
            for one, kv in enumerate(clients)
        ]
        waiter = await client("waiter")
        await waiter.allocate(1, pool="full")
        waiting = asyncio.create_task(waiter.allocate(2, pool="full", max_wait=load.PATIENCE))
        others = [
            asyncio.create_task(load.silence(address, "silent", progress)),
            asyncio.create_task(load.silence(address, None, progress)),
            asyncio.create_task(load.watch(address, states, progress)),
            asyncio.create_task(load.reflect(address, progress)),
        ]
        await progress.reach(len(others))
        loaded = [asyncio.create_task(load.last_error(one, progress)) for one in calls]
        await progress.reach(random.randint(100, 400))
        while not any(pool.waiting for pool in (await waiter.stats()).pools):
            pass
        server.send(number)
        errors = await asyncio.gather(*loaded)
        *silent, watched, reflected = await asyncio.gather(*others)
        (waited,) = await asyncio.gather(waiting, return_exceptions=True)
        sessions, unary = errors[:SESSIONS], errors[SESSIONS:]
        return Ends(sessions, silent, unary, waited, watched, reflected, states)


def test_second_signal_changes_nothing(tmp_path: Path) -> None:
    with spawned("--listen", f"unix:{tmp_path}/kv.sock") as server:
        server.ready()
        server.send(signal.SIGTERM)
        server.send(signal.SIGINT)
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in server.log()
    assert list(tmp_path.iterdir()) == []


def test_watchers_do_not_know_of_one_another(tmp_path: Path) -> None:
    """Who watches on is told the end, though another watcher has left before."""

    async def scenario(address: str, server: Spawned) -> None:
        progress = load.Progress()
        seen: list[list[int]] = [[], []]
        leaves, stays = (
            asyncio.create_task(load.watch(address, states, progress)) for states in seen
        )
        await progress.reach(2)
        leaves.cancel()
        await asyncio.wait([leaves])
        async with load.connect(address, "e") as kv:
            await kv.stats()
        server.send(signal.SIGTERM)
        assert isinstance(await stays, UnavailableError)
        assert seen[1] == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]

    with spawned("--listen", f"unix:{tmp_path}/kv.sock", "--grace", str(GRACE)) as server:
        (address,) = server.ready()
        asyncio.run(scenario(address, server))
        assert server.end() == 0
        assert "Traceback" not in server.log()


def test_call_that_hangs_is_cut_off_when_the_grace_time_is_over(tmp_path: Path) -> None:
    """An engine that reads no answers cannot hold the server for longer than that."""

    async def scenario(address: str, server: Spawned) -> int:
        async with load.choking(address):
            server.send(signal.SIGTERM)
            return await asyncio.to_thread(server.end)

    listen = ["--listen", f"unix:{tmp_path}/kv.sock", "--grace", "0.3"]
    with spawned("--pool", "a:total=1000000", "--default-pool", "a", *listen) as server:
        (address,) = server.ready()
        assert asyncio.run(scenario(address, server)) == 0
        assert "Traceback" not in server.log(), server.log()
    assert list(tmp_path.iterdir()) == []
