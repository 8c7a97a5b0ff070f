"""Use of a server after which each of its metrics has a value."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import kvblock


@contextmanager
def busy(server: kvblock.EmbeddedServer) -> Iterator[None]:
    """Calls and sessions that end well and badly, and an engine that is attached meanwhile.

    The server's pool has 8 blocks.
    """
    with kvblock.connect(server.address) as kv:
        with kv.session() as session:
            session.step(allocate=[1])
        kv.allocate(1, 8)
        assert isinstance(kv.allocate(2, 1, max_wait=0.01), kvblock.Refused)
        with pytest.raises(kvblock.NotFoundError):
            kv.get_block_table(7)
        with kv.session(engine="attached"):
            with pytest.raises(kvblock.KVBlockError), kv.session(engine="attached"):
                pass
            yield
