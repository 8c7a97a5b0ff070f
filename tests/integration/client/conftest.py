"""Both clients, one after the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, TypeAlias

import pytest
from tests.integration.client.flavours import Flavour

import kvblock

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
