"""A server for the commands to talk to."""

import os
from collections.abc import Iterator

import pytest

from tests.integration.cli.console import KVBLOCK, Console
from tests.integration.cli.every_command import Here
from tests.integration.processes import serving

POOLS = ("main:total=64,block_size=16,device=7", "small:total=3", "wide:total=2147483647")


@pytest.fixture
def console() -> Iterator[Console]:
    """A shell beside a fresh server with the pools main (the default), small and wide."""
    pools = [argument for spec in POOLS for argument in ("--pool", spec)]
    serve = (*KVBLOCK, "serve", *pools, "--default-pool", "main", "--listen", "127.0.0.1:0")
    with serving(*serve) as (address,):
        yield Console(address)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Commands that run in this process, where nothing configures them."""
    for name in [name for name in os.environ if name.startswith("KVBLOCK_")]:
        monkeypatch.delenv(name)
    return Here(monkeypatch, capsys)
