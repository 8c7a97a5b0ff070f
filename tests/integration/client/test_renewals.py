"""What keeps a lease alive, and tells of its loss, where the engine's own process is in trouble."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
from typing import Any

import grpc
import pytest

import kvblock
from kvblock import ClosedError
from kvblock.settings import open_channel
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import (
    PATIENCE,
    TTL,
    Losses,
    attach,
    both_kinds,
    engine_of,
    see_renewals,
    through,
)
from tests.integration.proxy import Proxy


@both_kinds
def test_what_a_forgotten_client_has_made_goes_on(
    flavour: Flavour, proxy: Proxy, observer: kvblock.Client, kind: str
) -> None:
    held = attach(flavour, through(flavour, proxy), kind)
    gc.collect()
    if kind == "session":
        assert flavour.do(held.step(allocate=[1])).granted == 1
    assert flavour.do(held.detach()) == (kind == "session")
    assert not engine_of(observer, "e").attached
    assert proxy.connections
    del held
    gc.collect()
    while proxy.connections:
        pass


class ClosesFirst(grpc.UnaryUnaryClientInterceptor):
    """Closes the client between an attach's answer and its caller."""

    def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
        call = proceed(details, request)
        if details.method.endswith("/AttachEngine"):
            assert call.code() is grpc.StatusCode.OK
            self.client.close()
        return call

    client: kvblock.Client


class AsyncClosesFirst(grpc.aio.UnaryUnaryClientInterceptor):
    """The same for asyncio."""

    async def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:
        call = await proceed(details, request)
        if details.method.endswith(b"/AttachEngine"):
            assert await call.code() is grpc.StatusCode.OK
            await self.client.close()
        return call

    client: kvblock.AsyncClient


def test_a_client_that_is_closed_while_it_attaches_keeps_no_lease(
    flavour: Flavour, server: kvblock.EmbeddedServer, observer: kvblock.Client
) -> None:
    closes = ClosesFirst() if flavour.name == "sync" else AsyncClosesFirst()
    closes.client = kv = flavour.client(
        server.address, engine="e", timeout=PATIENCE, interceptors=[closes]
    )
    with pytest.raises(ClosedError, match="this client is closed"):
        flavour.do(kv.attach_engine(ttl=TTL))
    while engine_of(observer, "e").attached:
        pass


@both_kinds
@pytest.mark.parametrize("callback", ["text", asyncio.sleep], ids=["text", "coroutine function"])
def test_a_callback_that_cannot_be_called_is_refused_at_once(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    kind: str,
    callback: Any,
) -> None:
    kv = connect(server, engine="e")
    with pytest.raises(kvblock.InvalidArgumentError) as caught:
        attach(flavour, kv, kind, on_lease_lost=callback)
    assert caught.value.metadata["field"] == "on_lease_lost"
    assert not engine_of(observer, "e").attached


class NoThreads:
    """Takes the place of `Thread.start`: for a renewal no thread can be started."""

    def __init__(self) -> None:
        self._start = threading.Thread.start

    def __get__(self, thread: threading.Thread, _: type) -> Any:
        def start() -> None:
            if threading.current_thread().name == "kvblock-renewal":
                raise RuntimeError("can't start new thread")
            self._start(thread)

        return start


@both_kinds
def test_a_lease_is_kept_where_no_thread_can_be_started(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    held = attach(flavour, connect(server, engine="e"), kind, ttl=TTL)
    monkeypatch.setattr(threading.Thread, "start", NoThreads())
    see_renewals(observer, "e", 3)
    assert flavour.do(held.detach()) == 0


@both_kinds
@pytest.mark.parametrize("how", ["frozen", "taken over"])
def test_a_loss_is_told_where_no_thread_can_be_started(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    losses: Losses,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    how: str,
) -> None:
    held = attach(flavour, connect(server, engine="e"), kind, ttl=TTL, on_lease_lost=losses)
    see_renewals(observer, "e", 1)
    monkeypatch.setattr(threading.Thread, "start", NoThreads())
    with contextlib.ExitStack() as until_told:
        if how == "frozen":
            os.kill(server.process.pid, signal.SIGSTOP)
            until_told.callback(os.kill, server.process.pid, signal.SIGCONT)
        else:
            flavour.do(connect(server).attach_engine(engine="e", takeover=True))
        assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
        assert not held.lease_valid
    assert len(losses.told) == 1


def test_a_renewal_that_goes_wrong_is_logged_and_tried_again(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    losses: Losses,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = threading.Event()
    broken.set()
    failed = threading.Semaphore(0)

    def breaks(*given: Any) -> Any:
        if broken.is_set():
            failed.release()
            raise ValueError("something else")
        return open_channel(*given)

    monkeypatch.setattr("kvblock.renewal.open_channel", breaks)
    kv = connect(server, engine="e")
    for fails_on in (False, True):
        broken.set()
        held = attach(flavour, kv, "lease", ttl=TTL, on_lease_lost=losses)
        for _ in range(3):
            assert failed.acquire(timeout=PATIENCE)
        if not fails_on:
            broken.clear()
            see_renewals(observer, "e", 2)
            flavour.do(held.detach())
            assert losses.told == []
    assert flavour.meanwhile(lambda: losses.event.wait(PATIENCE))
    assert len(losses.told) == 1
    told = [one for one in caplog.records if one.name == "kvblock.renewal"]
    assert [one.getMessage() for one in told] == ["the lease of 'e' cannot be renewed now"] * 2
    assert all("something else" in str(one.exc_info) for one in told)
