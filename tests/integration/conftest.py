"""How a test talks to a server: with the synchronous client, and again with the other one."""

from collections.abc import Iterator

import pytest

from tests.integration.client.flavours import AsyncFlavour, Flavour


@pytest.fixture(params=[Flavour, AsyncFlavour], ids=["sync", "async"])
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """How the test talks to the server."""
    made: Flavour = request.param()
    yield made
    made.end()
