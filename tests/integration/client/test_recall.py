"""Recall as both clients have it: hints, what is owed, and what comes unasked."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kvblock
from kvblock import EngineHints, InvalidArgumentError
from tests.conftest import ServerFactory
from tests.integration.client.conftest import Connect
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import (
    PATIENCE,
    TTL,
    attach,
    both_kinds,
    see_renewals,
    through,
)
from tests.integration.proxy import Proxy

BLOCKS = 64


class Levels:
    """What `on_recall` was called with; `next` waits for one."""

    def __init__(self, flavour: Flavour) -> None:
        self.seen: list[int] = []
        self._flavour = flavour
        self._come = threading.Semaphore(0)

    def __call__(self, owed_blocks: int) -> None:
        self.seen.append(owed_blocks)
        self._come.release()

    def next(self) -> int:
        assert self._flavour.meanwhile(lambda: self._come.acquire(timeout=PATIENCE))
        return self.seen[-1]


@pytest.fixture
def poor(server: kvblock.EmbeddedServer) -> Iterator[kvblock.Session]:
    """Another engine, which lacks what it says."""
    with kvblock.connect(server.address, engine="poor") as kv, kv.session() as session:
        yield session


def lacks(session: kvblock.Session, blocks: int) -> None:
    session.renew(hints=EngineHints(want_blocks=blocks))


def hold_all(flavour: Flavour, session: Any, **more: Any) -> Any:
    return flavour.do(session.step(allocate=[1], num_blocks=[BLOCKS], **more))


def test_steps_and_renewals_give_hints_and_learn_what_is_owed(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, poor: kvblock.Session
) -> None:
    kv = connect(server, engine="e")
    with flavour.entered(kv.session()) as session:
        assert session.owed_blocks == 0
        assert hold_all(flavour, session, hints=EngineHints(idle_blocks=9)).owed_blocks == 0
        lacks(poor, 5)
        assert flavour.do(session.step()).owed_blocks == 5
        assert session.owed_blocks == 5
        assert flavour.do(session.renew(hints=EngineHints(idle_blocks=2))) == 2
        assert session.owed_blocks == 2
        assert flavour.do(session.renew()) == 2
        assert flavour.do(kv.step(hints=EngineHints(idle_blocks=3))).owed_blocks == 3
        (engine,) = (one for one in flavour.do(kv.list_engines()) if one.engine == "e")
        assert (engine.want_blocks, engine.idle_blocks, engine.owed_blocks) == (0, 3, 3)
        pool = flavour.do(kv.stats()).pools[0]
        assert (pool.want_blocks, pool.idle_blocks, pool.owed_blocks) == (5, 3, 3)


@pytest.mark.parametrize(
    "hints", [EngineHints(want_blocks=-1), EngineHints(idle_blocks=1 << 32), (1, 2)], ids=str
)
def test_bad_hints_are_refused_here_and_the_session_goes_on(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, hints: Any
) -> None:
    with flavour.entered(connect(server, engine="e").session()) as session:
        with pytest.raises(InvalidArgumentError, match="hints"):
            flavour.do(session.step(hints=hints))
        with pytest.raises(InvalidArgumentError, match="hints"):
            flavour.do(session.renew(hints=hints))
        assert flavour.do(session.step(allocate=[1])).granted == 1


def test_level_comes_unasked_where_it_was_asked_for(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, poor: kvblock.Session
) -> None:
    levels = Levels(flavour)
    kv = connect(server, engine="e")
    with flavour.entered(kv.session(recall=True, on_recall=levels)) as session:
        hold_all(flavour, session, hints=EngineHints(idle_blocks=9))
        lacks(poor, 5)
        assert levels.next() == 5
        assert session.owed_blocks == 5
        lacks(poor, 6)
        assert levels.next() == 6
        # Its own calls are answered with it: no callback.
        assert flavour.do(session.step(hints=EngineHints(idle_blocks=4))).owed_blocks == 4
        assert session.owed_blocks == 4
        lacks(poor, 0)
        assert levels.next() == 0
        assert flavour.do(session.step(free=[1])).freed_counts == [BLOCKS]
        assert levels.seen == [5, 6, 0]


def test_pushes_between_answers_disturb_no_step(
    flavour: Flavour, connect: Connect, server: kvblock.EmbeddedServer, poor: kvblock.Session
) -> None:
    with flavour.entered(connect(server, engine="e").session(recall=True)) as session:
        hold_all(flavour, session, hints=EngineHints(idle_blocks=BLOCKS))
        for turn in range(40):
            lacks(poor, 1 + turn)
            step = flavour.do(session.step(allocate=[2]))
            assert step.refusal is not None
            assert step.owed_blocks == 1 + turn
        assert session.owed_blocks == 40


@both_kinds
def test_background_renewals_carry_hints_and_bring_what_is_owed(
    flavour: Flavour,
    connect: Connect,
    server: kvblock.EmbeddedServer,
    observer: kvblock.Client,
    poor: kvblock.Session,
    kind: str,
) -> None:
    levels = Levels(flavour)
    kv = connect(server, engine="e")
    held = attach(flavour, kv, kind, ttl=TTL, on_recall=levels)
    flavour.do(kv.allocate(1, BLOCKS))
    flavour.do(held.renew(hints=EngineHints(idle_blocks=8)))
    lacks(poor, 3)
    assert levels.next() == 3
    assert held.owed_blocks == 3
    see_renewals(observer, "e", 3)
    (engine,) = (one for one in observer.list_engines() if one.engine == "e")
    assert engine.idle_blocks == 8
    flavour.do(held.detach())


@both_kinds
def test_server_that_lost_the_hints_gets_them_with_a_renewal(
    flavour: Flavour,
    connect: Connect,
    server_factory: ServerFactory,
    tmp_path: Path,
    kind: str,
) -> None:
    where = ["--state-dir", str(tmp_path / "state"), "--listen", f"unix:{tmp_path / 'kv.sock'}"]
    before = server_factory(extra_args=where)
    kv = flavour.client(f"unix:{tmp_path / 'kv.sock'}", engine="e", timeout=PATIENCE)
    with flavour.entered(kv):
        held = attach(flavour, kv, kind, ttl=20 * TTL)
        flavour.do(kv.allocate(1, BLOCKS))
        flavour.do(held.renew(hints=EngineHints(want_blocks=1, idle_blocks=8)))
        before.stop()
        server = server_factory(extra_args=where)
        with kvblock.connect(server.address, timeout=PATIENCE) as observer:
            while not (pool := observer.stats().pools[0]).idle_blocks:
                assert held.lease_valid
            assert (pool.want_blocks, pool.idle_blocks) == (0, 8)
        flavour.do(held.detach())


def test_level_comes_again_on_a_new_stream(
    flavour: Flavour, proxy: Proxy, poor: kvblock.Session
) -> None:
    levels = Levels(flavour)
    kv = through(flavour, proxy)
    with flavour.entered(kv), flavour.entered(kv.session(recall=True, on_recall=levels)) as session:
        hold_all(flavour, session, hints=EngineHints(idle_blocks=9))
        lacks(poor, 5)
        assert levels.next() == 5
        proxy.cut()
        assert flavour.do(session.step()).owed_blocks == 5
        assert session.owed_blocks == 5
        lacks(poor, 7)
        while levels.seen[-1] != 7:
            levels.next()
