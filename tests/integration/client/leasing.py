"""What tests of leases have in common: one that is attached, who looks on, who is told."""

import threading
from typing import Any

import pytest

import kvblock
from kvblock import LeaseLostError
from tests.integration.client.flavours import Flavour
from tests.integration.proxy import Proxy

PATIENCE = 60.0
TTL = 1.0


class Losses:
    """An `on_lease_lost` that remembers what it was told, and by whom."""

    def __init__(self) -> None:
        self.told: list[LeaseLostError] = []
        self.threads: list[threading.Thread] = []
        self.event = threading.Event()

    def __call__(self, error: LeaseLostError) -> None:
        self.told.append(error)
        self.threads.append(threading.current_thread())
        self.event.set()


def engine_of(observer: kvblock.Client, engine: str) -> kvblock.EngineStats:
    (row,) = observer.stats(engine=engine).pools[0].engines
    return row


def see_renewals(observer: kvblock.Client, engine: str, count: int) -> None:
    """Return when the engine's lease was renewed so many times; it must never have ended."""
    left = TTL
    while count:
        row = engine_of(observer, engine)
        assert row.attached, "the lease has ended"
        assert row.lease_expires_in is not None
        count -= row.lease_expires_in > left
        left = row.lease_expires_in


def through(flavour: Flavour, proxy: Proxy, **settings: Any) -> Any:
    return flavour.client(proxy.address, engine="e", timeout=PATIENCE, **settings)


def attach(flavour: Flavour, kv: Any, kind: str, **terms: Any) -> Any:
    """A session or an engine's lease."""
    if kind == "lease":
        return flavour.do(kv.attach_engine(**terms))
    session = kv.session(**terms)
    flavour.do(session.attach())
    return session


both_kinds = pytest.mark.parametrize("kind", ["session", "lease"])
