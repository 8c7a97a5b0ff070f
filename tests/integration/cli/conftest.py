"""A server for the commands to talk to."""

from collections.abc import Iterator

import pytest
from tests.integration.cli.console import KVBLOCK, Console
from tests.integration.processes import serving

POOLS = ("main:total=64,block_size=16,device=7", "small:total=3", "wide:total=2147483647")


@pytest.fixture
def console() -> Iterator[Console]:
    """A shell beside a fresh server with the pools main (the default), small and wide."""
    pools = [argument for spec in POOLS for argument in ("--pool", spec)]
    serve = (*KVBLOCK, "serve", *pools, "--default-pool", "main", "--listen", "127.0.0.1:0")
    with serving(*serve) as (address,):
        yield Console(address)
