"""Servers that freeze, drain or die while clients use them."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import kvblock
from kvblock import (
    ClosedError,
    DeadlineExceededError,
    ErrorReason,
    UnansweredError,
    UnavailableError,
)
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour

# More than a socket's buffer takes.
LARGE = range(60_000)
SOON = 0.3


@contextmanager
def frozen(server: kvblock.EmbeddedServer) -> Iterator[None]:
    """The server does nothing at all for a while."""
    os.kill(server.process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("ids", [[1], LARGE], ids=["small", "large"])
def test_step_that_is_not_answered(
    flavour: Flavour, connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str, ids: Any
) -> None:
    session = connect(shared_server, engine=engine).session()
    flavour.do(session.attach())
    with frozen(shared_server):
        with pytest.raises(DeadlineExceededError, match="is unknown until it is sent") as caught:
            flavour.do(session.step(allocate=ids, timeout=SOON))
        assert caught.value.reason is None
        assert caught.value.fate_unknown
        with pytest.raises(UnansweredError):
            flavour.do(session.step())
        with pytest.raises(DeadlineExceededError):
            flavour.do(session.recover(timeout=SOON))
        assert session.unanswered
    assert flavour.do(session.recover()).granted == len(ids)
    assert flavour.do(session.step(free=ids)).freed_counts == [1] * len(ids)
    with pytest.raises(kvblock.FailedPreconditionError, match="every step"):
        flavour.do(session.recover())
    assert flavour.do(session.detach()) == 0


@pytest.mark.parametrize("ids", [[1], LARGE], ids=["small", "large"])
def test_call_that_is_not_answered(
    flavour: Flavour, connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str, ids: Any
) -> None:
    kv = connect(shared_server)
    assert flavour.do(kv.health())
    with (
        frozen(shared_server),
        pytest.raises(DeadlineExceededError, match="did not answer in time"),
    ):
        flavour.do(kv.step(allocate=ids, timeout=SOON))
    assert flavour.do(kv.health())


def test_attach_that_is_not_answered(
    flavour: Flavour, connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    kv = connect(shared_server)
    assert flavour.do(kv.health())
    with frozen(shared_server):
        session = kv.session(engine=engine, timeout=SOON)
        with pytest.raises(DeadlineExceededError):
            flavour.do(session.attach())
        assert not session.attached
    # It may have been carried out, or not: the same attach again finds the same lease.
    flavour.do(session.attach(timeout=30.0))
    assert flavour.do(session.step(allocate=[1])).granted == 1
    flavour.do(session.detach())


def test_close_while_a_large_step_is_stuck(
    flavour: Flavour, shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    with flavour.entered(flavour.client(shared_server.address)) as kv:
        session = kv.session(engine=engine)
        flavour.do(session.attach())
        with frozen(shared_server):
            with pytest.raises(DeadlineExceededError):
                flavour.do(session.step(allocate=LARGE, timeout=SOON))
            flavour.do(kv.close())


def test_calls_behind_a_large_one_that_is_stuck(
    flavour: Flavour, connect: Connect, shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    kv = connect(shared_server, engine=engine, timeout=SOON)
    assert flavour.do(kv.health(timeout=30.0))
    with frozen(shared_server):
        for call in (
            lambda: kv.step(allocate=LARGE),
            lambda: kv.step(allocate=[1]),
            lambda: kv.free(1),
            kv.stats,
            kv.attach_engine,
            kv.health,
        ):
            with pytest.raises(DeadlineExceededError):
                flavour.do(call())
    assert flavour.do(kv.health(timeout=30.0))


def test_a_session_that_is_left_while_a_thread_makes_a_step(
    server: kvblock.EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[Exception] = []

    def step() -> None:
        try:
            session.step(allocate=[2], timeout=30.0)
        except kvblock.KVBlockError as error:
            ended.append(error)

    def engine() -> None:
        with session:
            until_left.enter_context(frozen(server))
            worker.start()
            while not session._busy.locked():
                pass
            raise ValueError("the engine's own")

    worker = threading.Thread(target=step)
    with kvblock.connect(server.address) as kv, ExitStack() as until_left:
        session = kv.session(engine="e", timeout=SOON)
        with pytest.raises(ValueError, match="the engine's own"):
            engine()
    worker.join()
    assert not session.lease_valid
    assert "engine 'e' could not detach" in caplog.text
    assert [(type(error), str(error)) for error in ended] == [
        (ClosedError, "this session has ended: it was left")
    ]


def test_a_session_that_is_left_while_a_task_makes_a_step(
    server: kvblock.EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        kv = kvblock.connect_async(server.address)
        session = kv.session(engine="e", timeout=SOON)
        await session.attach()
        with frozen(server):
            task = asyncio.create_task(session.step(allocate=[2], timeout=30.0))
            await asyncio.sleep(0)
            await session.__aexit__(None, None, None)
            with pytest.raises(ClosedError, match="it was left"):
                await task
        assert not session.lease_valid
        await kv.close()

    asyncio.run(scenario())
    assert "engine 'e' could not detach" in caplog.text


def test_killed(flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer) -> None:
    kv = connect(server)
    session = kv.session()
    flavour.do(session.attach())
    server.process.kill()
    server.process.wait()
    with pytest.raises(UnavailableError) as caught:
        flavour.do(session.step(allocate=[1], timeout=SOON))
    assert session.unanswered
    assert (caught.value.reason, caught.value.retry_after) == (None, None)
    with pytest.raises(UnavailableError):
        flavour.do(kv.health())
    server.process.returncode = 0


def test_leaving_a_session_whose_server_is_gone(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with flavour.entered(connect(server).session(engine="e", timeout=SOON)):
        server.process.kill()
        server.process.wait()
    assert "engine 'e' could not detach" in caplog.text
    server.process.returncode = 0


def test_drained(flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer) -> None:
    session = connect(server).session()
    flavour.do(session.attach())
    assert flavour.meanwhile(server.stop) == 0
    with pytest.raises(UnavailableError) as caught:
        flavour.do(session.step(allocate=[1], timeout=SOON))
    assert caught.value.reason is ErrorReason.DRAINING
    assert caught.value.retry_after is not None


def test_drained_under_load(server: kvblock.EmbeddedServer) -> None:
    """Each of eight busy sessions sees answers, and then that the server is gone."""
    ends: list[BaseException | None] = []
    ready = threading.Barrier(9)

    def plain(engine: str) -> None:
        client = kvblock.connect(server.address, timeout=60.0, retries=False)
        with client as kv, kv.session(engine=engine) as s:
            s.step(allocate=[0])
            ready.wait(60.0)
            for number in range(1, 10**9):
                s.step(free=[number - 1], allocate=[number])

    async def awaited(engine: str) -> None:
        client = kvblock.connect_async(server.address, timeout=60.0, retries=False)
        async with client as kv, kv.session(engine=engine) as s:
            await s.step(allocate=[0])
            await asyncio.to_thread(ready.wait, 60.0)
            for number in range(1, 10**9):
                await s.step(free=[number - 1], allocate=[number])

    def run(number: int) -> None:
        try:
            if number % 2:
                plain(f"e{number}")
            else:
                asyncio.run(awaited(f"e{number}"))
        except kvblock.KVBlockError as error:
            ends.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    ready.wait(60.0)
    assert server.stop() == 0
    for thread in threads:
        thread.join(60.0)
    assert [type(end) for end in ends] == [UnavailableError] * 8, ends


def test_close_ends_what_is_running(shared_server: kvblock.EmbeddedServer, engine: str) -> None:
    """Closing a client from another thread ends its calls; it does not wait for the server."""
    errors: list[BaseException] = []

    def run(call: Any) -> None:
        try:
            call()
        except kvblock.KVBlockError as error:
            errors.append(error)

    kv = kvblock.connect(shared_server.address, timeout=None)
    session = kv.session(engine=engine)
    session.attach()
    with frozen(shared_server):
        calls = (kv.health, lambda: session.step(allocate=[1]))
        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        while not session._busy.locked():
            threads[1].join(0.01)
        kv.close()
        for thread in threads:
            thread.join(60.0)
    assert [type(error) for error in errors] == [ClosedError, ClosedError], errors


def test_async_close_ends_what_is_running(
    shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    async def scenario() -> None:
        kv = kvblock.connect_async(shared_server.address, timeout=None)
        session = kv.session(engine=engine)
        await session.attach()
        with frozen(shared_server):
            tasks = [asyncio.create_task(kv.health()), asyncio.create_task(session.step())]
            await asyncio.sleep(0)
            await kv.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [ClosedError, ClosedError], ends

    asyncio.run(scenario())


def test_cancelled_step_is_recovered(shared_server: kvblock.EmbeddedServer, engine: str) -> None:
    async def scenario() -> None:
        async with kvblock.connect_async(shared_server.address, timeout=None) as kv:
            session = kv.session(engine=engine)
            await session.attach()
            with frozen(shared_server):
                task = asyncio.create_task(session.step(allocate=[1]))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with pytest.raises(UnansweredError):
                    await session.step()
            assert (await session.recover()).granted == 1
            assert await session.detach() == 1

    asyncio.run(scenario())


def test_client_of_another_loop(shared_server: kvblock.EmbeddedServer) -> None:
    kv = kvblock.connect_async(shared_server.address, timeout=30.0)

    async def use() -> None:
        assert await kv.health()

    asyncio.run(use())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(use())


def test_a_step_times_out_in_a_task_that_was_cancelled_before(
    shared_server: kvblock.EmbeddedServer, engine: str
) -> None:
    """A task that caught its cancellation and tidies up is told what happens then."""

    async def tidy_up(session: kvblock.AsyncSession) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        with frozen(shared_server), pytest.raises(DeadlineExceededError):
            await session.step(timeout=SOON)

    async def scenario() -> None:
        async with (
            kvblock.connect_async(shared_server.address) as kv,
            kv.session(engine=engine) as session,
        ):
            task = asyncio.create_task(tidy_up(session))
            await asyncio.sleep(0)
            task.cancel()
            await task

    asyncio.run(scenario())
