"""Servers that ask who is calling."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

import kvblock
from tests.conftest import ServerFactory
from tests.integration.access.certificates import Files
from tests.waiting import happens

POOLS = ("gpu0:total=64,block_size=16,device=7", "gpu1:total=64,block_size=16,device=8")
TOKENS = {
    "trainer": "trainer-token-5f0c9a1e",
    "operator": "operator-token-77aa01bc",
    "hasty": "hasty-token-0192837465",
}
IDENTITIES = f"""\
[[identity]]
name = "trainer"
token = "{TOKENS["trainer"]}"
certificate = "trainer-*.example"
engines = ["vllm-*", "default"]
pools = ["gpu0"]

[[identity]]
name = "operator"
token = "{TOKENS["operator"]}"
engines = ["*"]
pools = ["*"]
admin = true
"""

"""Seconds after which something that should have happened is given up."""

TAKEN_UP = "read again, after a change"
REFUSED = "what was read before it stays in force"

Guarded: TypeAlias = Callable[..., kvblock.EmbeddedServer]


def whole(identities: str, unix: str = "trusted") -> str:
    """The text of an access file with these identities."""
    return f'unix = "{unix}"\n\n{identities}\n[end]\n'


def write(path: Path, identities: str, unix: str = "trusted") -> Path:
    """An access file, which replaces an older one at once."""
    new = path.with_suffix(".new")
    new.write_text(whole(identities, unix))
    new.chmod(0o600)
    return new.replace(path)


@contextmanager
def follows(server: kvblock.EmbeddedServer, said: str = TAKEN_UP) -> Iterator[None]:
    """Wait until the server has followed, or refused, what the block does to its files."""
    before = server.stderr.count(said)
    yield
    happens(lambda: server.stderr.count(said) > before)


def rewrite(
    server: kvblock.EmbeddedServer, path: Path, identities: str, unix: str = "trusted"
) -> None:
    """Replace the access file of a server, and wait until it is in force."""
    with follows(server):
        write(path, identities, unix)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A folder for certificates."""
    return Files(tmp_path)


@pytest.fixture
def access(tmp_path: Path) -> Path:
    """An access file with the identities trainer and operator."""
    return write(tmp_path / "access.toml", IDENTITIES)


@pytest.fixture
def guarded(server_factory: ServerFactory, access: Path) -> Guarded:
    """Starts servers with the access file: a Unix socket, then a port; the default pool is gpu0."""

    def start(*flags: str, env: dict[str, str] | None = None) -> kvblock.EmbeddedServer:
        listen = ["--listen", "127.0.0.1:0", "--default-pool", "gpu0"]
        return server_factory(POOLS, [*listen, "--access-file", str(access), *flags], env=env)

    return start


def port_of(server: kvblock.EmbeddedServer) -> str:
    """The TCP address, as `localhost`: the name in the server's certificate."""
    return server.addresses[1].replace("127.0.0.1", "localhost")
