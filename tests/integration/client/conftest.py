"""Both clients, one after the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import kvblock
import pytest

from tests.integration.client.flavours import AsyncFlavour, Flavour

Connect: TypeAlias = Callable[..., Any]


@pytest.fixture(params=[Flavour, AsyncFlavour], ids=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """How the test talks to the server."""
    made: Flavour = request.param()
    yield made
    made.end()


@pytest.fixture
def connect(flavour: Flavour, server: kvblock.EmbeddedServer) -> Iterator[Connect]:
    """Makes clients of `server` that are closed when the test ends: `connect(engine="a")`."""
    with ExitStack() as clients:

        def make(address: str = server.address, **settings: Any) -> Any:
            settings.setdefault("timeout", 30.0)
            return clients.enter_context(flavour.entered(flavour.client(address, **settings)))

        yield make
