"""Both clients, one after the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from random import Random
from typing import Any, TypeAlias

import pytest

import kvblock
from tests.integration.client.flavours import Flavour
from tests.integration.client.leasing import PATIENCE, Losses
from tests.integration.proxy import Proxy

Connect: TypeAlias = Callable[..., Any]

_numbers = count(1)


@pytest.fixture
def connect(flavour: Flavour) -> Iterator[Connect]:
    """Makes clients that are closed when the test ends: `connect(server, engine="a")`."""
    with ExitStack() as clients:

        def make(server: kvblock.EmbeddedServer, **settings: Any) -> Any:
            settings.setdefault("timeout", 30.0)
            client = flavour.client(server.address, **settings)
            return clients.enter_context(flavour.entered(client))

        yield make


@pytest.fixture
def engine() -> str:
    """A name that no other test uses."""
    return f"e{next(_numbers)}"


@pytest.fixture
def losses() -> Losses:
    """An `on_lease_lost` that remembers."""
    return Losses()


@pytest.fixture
def proxy(server: kvblock.EmbeddedServer, seed: int) -> Iterator[Proxy]:
    """What stands between a client and its server."""
    with Proxy(server.address, Random(seed)) as made:
        yield made


@pytest.fixture
def observer(server: kvblock.EmbeddedServer) -> Iterator[kvblock.Client]:
    """Somebody else, who looks on."""
    with kvblock.connect(server.address, engine="observer", timeout=PATIENCE) as kv:
        yield kv
